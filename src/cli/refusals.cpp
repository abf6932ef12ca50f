// SPDX-License-Identifier: MIT
#include "refusals.hpp"

#include "host_path.hpp"

#include <vector>

#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

bool tell_refusal(const finding::Findings& findings, const std::string& path, World& world) {
  std::vector<std::string> reasons;
  for (const finding::Finding& finding : findings) {
    if (analysis::is_refusal(finding.code))
      reasons.push_back(fmt::format("{}: {}", finding::row(finding.code).slug, finding.detail));
  }
  if (reasons.empty())
    return false;
  world.complain({ErrorCode::corrupt,
                  fmt::format("{}: {}. QEMU refuses the image; 'coldchain check {}' says more",
                              to_terminal(path), fmt::join(reasons, "; "), word_for_path(path)),
                  0});
  return true;
}

bool tell_refusals(const graph::Node& top, World& world) {
  bool is_refused = false;
  for (const graph::Node* node : graph::chain_of(top)) {
    if (const qcow2::Image* image = node->qcow2_image())
      is_refused =
          tell_refusal(analysis::refusals_of(*image), host_path(*node), world) || is_refused;
  }
  return is_refused;
}

}  // namespace coldchain::cli
