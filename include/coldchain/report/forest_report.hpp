// SPDX-License-Identifier: MIT
// `tree DIR…`: the backing trees of a folder, from the bases down to the leaves, and as JSON
// (docs/json.md, coldchain.forest).
#pragma once

#include <map>
#include <string>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

// What was read of each image beyond its header, by path; empty with --fast.
using ForestUsage = std::map<std::string, analysis::NodeUsage>;

[[nodiscard]] Result<void> write_forest_text(const graph::Forest& forest, const ForestUsage& usage,
                                             const Style& style, const Sink& sink);
[[nodiscard]] Result<void> write_forest_json(const graph::Forest& forest, const ForestUsage& usage,
                                             const Sink& sink);

}  // namespace coldchain::report
