// SPDX-License-Identifier: MIT
// The progress of a long operation, and whether it continues.
#pragma once

#include <cstdint>
#include <functional>

namespace coldchain {

// Called from time to time with `done` of `total` bytes. If it returns false, the operation stops
// at the next safe point. May be empty.
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

}  // namespace coldchain
