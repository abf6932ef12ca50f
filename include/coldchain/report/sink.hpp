// SPDX-License-Identifier: MIT
// Where reports go: a function that takes text. Reports are written as they come, so that a long
// one never lies in memory whole.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include <coldchain/base/result.hpp>

namespace coldchain::report {

using Sink = std::function<Result<void>(std::string_view text)>;

// A report passes its text on as soon as it has so many bytes.
inline constexpr std::size_t flush_at = 1U << 18;

}  // namespace coldchain::report
