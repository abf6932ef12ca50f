// SPDX-License-Identifier: MIT
#include "refusals.hpp"

#include "host_path.hpp"

#include <vector>

#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/qcow2/extensions.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

void tell(const std::string& path, const std::string& reason, World& world) {
  world.complain(
      {ErrorCode::corrupt,
       fmt::format("{}: {}. QEMU refuses the image; 'coldchain check {}' lists the errors",
                   to_terminal(path), reason, word_for_path(path)),
       0});
}

}  // namespace

bool tell_refusal(const finding::Findings& findings, const std::string& path, World& world) {
  std::vector<std::string> reasons;
  for (const finding::Finding& finding : findings) {
    if (analysis::is_refusal(finding.code))
      reasons.push_back(fmt::format("{}: {}", finding::row(finding.code).slug, finding.detail));
  }
  if (reasons.empty())
    return false;
  tell(path, fmt::format("{}", fmt::join(reasons, "; ")), world);
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

bool tell_refusal_of_damaged(const graph::Node& image, World& world) {
  const qcow2::Image* qcow2 = image.qcow2_image();
  if (qcow2 == nullptr)
    return false;
  const Result<void> accepted = qcow2::check_extensions(qcow2->header());
  if (accepted)
    return tell_refusal(analysis::refusals_of(*qcow2), host_path(image), world);
  tell(host_path(image), accepted.error().message, world);
  return true;
}

}  // namespace coldchain::cli
