// SPDX-License-Identifier: MIT
// What of a guest's disk cannot be read: for people, and as a member of JSON objects whose form
// qemu-img or nbdinfo sets.
#pragma once

#include <string>
#include <vector>

#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::report {

// `"coldchain": {"unreadable": [{"start": …, "length": …, "depth": …, "reason": "past-end"}, …]}`
[[nodiscard]] std::string unreadable_member(const analysis::UnreadableRanges& unreadable);

// One sentence for each layer and reason: how much, where it begins, and what to run next.
[[nodiscard]] std::vector<std::string> unreadable_lines(
    const graph::Chain& chain, const analysis::UnreadableRanges& unreadable);

}  // namespace coldchain::report
