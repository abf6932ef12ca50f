// SPDX-License-Identifier: MIT
// The word that somebody may have meant who typed one that does not exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coldchain::cli {

// " Did you mean 'map'?", with the word that is nearest to `typed`; empty where none is near.
[[nodiscard]] std::string did_you_mean(std::string_view typed,
                                       const std::vector<std::string>& words);

}  // namespace coldchain::cli
