// SPDX-License-Identifier: MIT
// Owned bytes, views of bytes, and the one door from bytes to structs: load<Wire>(view, offset),
// which checks the bounds. Also the only place with a reinterpret_cast.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <coldchain/base/endian.hpp>

namespace coldchain {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

// The Wire struct at `offset` of `view`, or nothing where the view ends before it does.
template <class Wire>
[[nodiscard]] std::optional<Wire> load(ByteView view, std::size_t offset) {
  static_assert(std::is_trivially_copyable_v<Wire> && alignof(Wire) == 1);
  if (offset > view.size() || view.size() - offset < sizeof(Wire))
    return std::nullopt;
  Wire wire;
  std::memcpy(&wire, view.data() + offset, sizeof(Wire));
  return wire;
}

[[nodiscard]] inline bool is_zero(ByteView bytes) {
  return bytes.empty() || (bytes.front() == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// The bytes of a Wire struct.
template <class Wire>
[[nodiscard]] ByteView bytes_of(const Wire& wire) {
  static_assert(std::is_trivially_copyable_v<Wire> && alignof(Wire) == 1);
  return std::as_bytes(std::span<const Wire, 1>(&wire, 1));
}

template <class Wire>
void append(Bytes& bytes, const Wire& wire) {
  const std::size_t end = bytes.size();
  bytes.resize(end + sizeof(Wire));
  std::memcpy(bytes.data() + end, &wire, sizeof(Wire));
}

// Text in a file is bytes: no encoding is assumed, NUL included.
[[nodiscard]] inline std::string to_string(ByteView view) {
  return {reinterpret_cast<const char*>(view.data()), view.size()};
}

[[nodiscard]] inline ByteView text_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Big-endian table entries, writable as the bytes that a file is read into.
template <class T>
[[nodiscard]] ByteSpan writable_bytes_of(std::vector<T>& entries) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
  return std::as_writable_bytes(std::span(entries));
}

}  // namespace coldchain
