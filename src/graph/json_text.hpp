// SPDX-License-Identifier: MIT
// The text of a json: name, by the rules of QEMU's parser: strings in double or in single quotes,
// no name twice in one object. The text comes from images: size and depth are bounded.
#pragma once

#include <string_view>

#include <coldchain/base/result.hpp>

#include <nlohmann/json.hpp>

namespace coldchain::graph {

[[nodiscard]] Result<nlohmann::json> parse_json_text(std::string_view text);

}  // namespace coldchain::graph
