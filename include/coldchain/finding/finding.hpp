// SPDX-License-Identifier: MIT
// What can be wrong with an image or with a link of its backing tree, as data. Readers and walkers
// add findings and go on; wording for people is made in `report`, repairs elsewhere.
#pragma once

#include <string>
#include <vector>

#include <coldchain/finding/catalogue.hpp>

namespace coldchain::finding {

struct Finding {
  Code code{};
  std::string detail;  // what exactly was found: names and numbers, no full stop
};

using Findings = std::vector<Finding>;

// The worst severity among them; nothing is worse than `note` in an empty list.
[[nodiscard]] Severity worst(const Findings& findings);

}  // namespace coldchain::finding
