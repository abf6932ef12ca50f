// SPDX-License-Identifier: MIT
// Big-endian integers as they lie in a file: byte arrays of alignment 1, so that a struct of them
// needs no packing, and no accidental arithmetic: get() is the only way out.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace coldchain {

static_assert(std::endian::native == std::endian::little || std::endian::native == std::endian::big,
              "a machine of mixed byte order");

template <std::unsigned_integral T>
class BigEndian {
 public:
  constexpr BigEndian() = default;
  constexpr BigEndian(T value)  // NOLINT(google-explicit-constructor): storing is unambiguous
      : bytes_(std::bit_cast<std::array<std::byte, sizeof(T)>>(swap_on_little(value))) {}

  [[nodiscard]] constexpr T get() const { return swap_on_little(std::bit_cast<T>(bytes_)); }

 private:
  // std::byteswap is C++23; a byte loop does not become one instruction with gcc 12.
  static constexpr T swap_on_little(T value) {
    if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1)
      return value;
    else if constexpr (sizeof(T) == 2)
      return static_cast<T>(__builtin_bswap16(value));
    else if constexpr (sizeof(T) == 4)
      return __builtin_bswap32(value);
    else
      return __builtin_bswap64(value);
  }

  std::array<std::byte, sizeof(T)> bytes_{};
};

using be16 = BigEndian<std::uint16_t>;
using be32 = BigEndian<std::uint32_t>;
using be64 = BigEndian<std::uint64_t>;

static_assert(sizeof(be16) == 2 && sizeof(be32) == 4 && sizeof(be64) == 8);
static_assert(alignof(be16) == 1 && alignof(be32) == 1 && alignof(be64) == 1);

}  // namespace coldchain
