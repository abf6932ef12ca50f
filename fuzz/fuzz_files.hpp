// SPDX-License-Identifier: MIT
// The world of a fuzz target: the input as the file "top", and something raw under every other name
// that a seed uses.
#pragma once

#include "memory_files.hpp"

#include <cstdint>

#include <coldchain/graph/open.hpp>

namespace coldchain::fuzz {

inline Bytes to_bytes(const std::uint8_t* data, std::size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  return {begin, begin + size};
}

inline testing::MemoryFiles files_with(Bytes top) {
  return testing::MemoryFiles({{"top", std::move(top)}, {"base", Bytes(5000, std::byte{'B'})}});
}

inline graph::OpenRequest request_for_top() {
  graph::OpenRequest request;
  request.name = "top";
  request.format = "qcow2";
  return request;
}

}  // namespace coldchain::fuzz
