// SPDX-License-Identifier: MIT
// Host clusters that several guest clusters use, in words: who uses them, and where the true
// content of one may be. Neighbours are one line.
#pragma once

#include <string>

#include <coldchain/finding/finding.hpp>

namespace coldchain::report {

// Empty where there are none.
[[nodiscard]] std::string shared_clusters_text(const finding::Findings& findings);

}  // namespace coldchain::report
