// SPDX-License-Identifier: MIT
// Sizes on the command line, with qemu-img's suffixes.
#pragma once

#include <cstdint>
#include <string_view>

#include <coldchain/base/result.hpp>

namespace coldchain::cli {

// "4096", "64k", "1.5G": b, k, M, G, T, P and E in either case are powers of 1024. `what` is for
// the message.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view what, std::string_view text);

}  // namespace coldchain::cli
