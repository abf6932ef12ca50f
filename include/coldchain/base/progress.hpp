// SPDX-License-Identifier: MIT
// How far something long has come, and whether it is to go on.
#pragma once

#include <cstdint>
#include <functional>

namespace coldchain {

// Called now and then, `done` of `total` bytes; false stops it at the next safe point. May be
// empty.
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

}  // namespace coldchain
