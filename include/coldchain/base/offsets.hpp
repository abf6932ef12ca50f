// SPDX-License-Identifier: MIT
// Two kinds of byte offset that must never be mixed: where the guest sees a byte, and where it lies
// in an image file. Ranges are half-open.
#pragma once

#include <compare>
#include <cstdint>

namespace coldchain {

template <class Space>
struct Offset {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(Offset, Offset) = default;
  friend constexpr Offset operator+(Offset offset, std::uint64_t bytes) {
    return {offset.value + bytes};
  }
  friend constexpr std::uint64_t operator-(Offset a, Offset b) { return a.value - b.value; }
};

template <class Space>
struct OffsetRange {
  Offset<Space> begin;
  Offset<Space> end;

  friend constexpr bool operator==(const OffsetRange&, const OffsetRange&) = default;
  [[nodiscard]] constexpr std::uint64_t size() const { return end - begin; }
  [[nodiscard]] constexpr bool empty() const { return begin >= end; }
  [[nodiscard]] constexpr bool contains(Offset<Space> offset) const {
    return begin <= offset && offset < end;
  }
};

struct GuestSpace;
struct HostSpace;
using GuestOffset = Offset<GuestSpace>;
using HostOffset = Offset<HostSpace>;
using GuestRange = OffsetRange<GuestSpace>;
using HostRange = OffsetRange<HostSpace>;

}  // namespace coldchain
