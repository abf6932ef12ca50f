// SPDX-License-Identifier: MIT
// The progress of a long operation, and whether it continues.
#pragma once

#include <cstdint>
#include <functional>

namespace coldchain {

// How far an operation is, in bytes.
struct ProgressPoint {
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  std::uint64_t found =
      0;  // of `done`: bytes that an earlier attempt had left, and were not written
};

// Called from time to time, first where the work begins. If it returns false, the operation stops
// at the next safe point. May be empty.
using Progress = std::function<bool(const ProgressPoint& point)>;

}  // namespace coldchain
