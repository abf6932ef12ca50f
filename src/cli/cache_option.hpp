// SPDX-License-Identifier: MIT
// Cache modes of qemu-img: accepted, and of no effect.
#pragma once

#include <string>

#include <coldchain/base/result.hpp>

namespace coldchain::cli {

[[nodiscard]] Result<void> check_cache(const std::string& mode);

}  // namespace coldchain::cli
