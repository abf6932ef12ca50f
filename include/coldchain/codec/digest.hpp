// SPDX-License-Identifier: MIT
// SHA-256 (FIPS 180-4), by which a plan is known again: unlike a checksum, it holds against people.
#pragma once

#include <array>
#include <memory>
#include <string>

#include <coldchain/base/bytes.hpp>

namespace coldchain::codec {

using Digest = std::array<std::byte, 32>;

[[nodiscard]] std::string to_hex(const Digest& digest);

class Sha256 {
 public:
  Sha256();

  void update(ByteView bytes);
  // A number as eight big-endian bytes.
  void update(std::uint64_t number);
  // Its size, then its bytes, so that two texts one after the other are not taken for others.
  void update_text(std::string_view text);

  // Of all that came so far. Nothing comes after it.
  [[nodiscard]] Digest finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

}  // namespace coldchain::codec
