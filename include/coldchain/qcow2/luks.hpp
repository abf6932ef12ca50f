// SPDX-License-Identifier: MIT
// What the LUKS header of an encrypted image says of itself; no key is ever handled.
// qcow2.rst, "Full disk encryption header pointer"; LUKS1 On-Disk Format Specification.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

struct LuksKeySlot {
  bool active = false;
  std::uint32_t iterations = 0;
  std::uint32_t stripes = 0;
  std::uint64_t key_offset = 0;  // bytes from the start of the LUKS header
};

struct LuksInfo {
  std::string cipher_alg, cipher_mode, ivgen_alg, ivgen_hash_alg, hash_alg, uuid;
  std::uint64_t payload_offset = 0;  // bytes
  std::uint32_t master_key_iterations = 0;
  std::array<LuksKeySlot, 8> slots;
};

// Whether the header says where the LUKS header lies, in a way that QEMU accepts.
[[nodiscard]] bool finds_luks_header(const Header& header);

[[nodiscard]] Result<LuksInfo> read_luks(const io::File& file, const Header& header);

}  // namespace coldchain::qcow2
