// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>

#include <coldchain/analysis/luks.hpp>
#include <coldchain/base/endian.hpp>

namespace coldchain::analysis {

namespace {

// LUKS On-Disk Format Specification 1.2.3, "phdr": the first fields, and the payload offset.
struct LuksHeader {
  std::array<char, 6> magic;
  be16 version;
  std::array<char, 96> cipher_mode_hash;
  be32 payload_offset;  // sectors; of version 1
};
static_assert(sizeof(LuksHeader) == 108);

constexpr std::array<char, 6> luks_magic = {'L', 'U', 'K', 'S', '\xba', '\xbe'};

}  // namespace

std::optional<LuksFacts> luks_facts_of(const graph::Node& node) {
  if (node.raw_image() == nullptr)
    return std::nullopt;
  LuksHeader header;
  const Result<void> read =
      node.raw_image()->read({0}, std::as_writable_bytes(std::span(&header, 1)));
  if (!read || header.magic != luks_magic)
    return std::nullopt;
  if (header.version.get() == 1)
    return LuksFacts{"luks", std::uint64_t{header.payload_offset.get()} * 512};
  return header.version.get() == 2 ? std::optional(LuksFacts{"luks2"}) : std::nullopt;
}

}  // namespace coldchain::analysis
