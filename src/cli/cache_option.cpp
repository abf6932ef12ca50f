// SPDX-License-Identifier: MIT
#include "cache_option.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

Result<void> check_cache(const std::string& cache) {
  constexpr std::array known = {"none", "off", "writeback", "unsafe", "writethrough", "directsync"};
  if (std::find(known.begin(), known.end(), cache) == known.end())
    return fail(ErrorCode::invalid_argument,
                fmt::format("Invalid cache option: {}", to_terminal(cache)));
  return {};
}

}  // namespace coldchain::cli
