// SPDX-License-Identifier: MIT
// qemu-img's -r: a copy that takes no more of the storage than it is allowed.
#pragma once

#include <cstdint>
#include <string>

#include <coldchain/base/progress.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::cli {

// Bytes per second; "0": as fast as it goes.
[[nodiscard]] Result<std::uint64_t> parse_rate(const std::string& text);

// Waits, each time when it is told of progress, until that is due.
[[nodiscard]] Progress at_most(std::uint64_t rate, Progress progress);

}  // namespace coldchain::cli
