// SPDX-License-Identifier: MIT
#include "link_warnings.hpp"

#include "host_path.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

using finding::Code;

}  // namespace

void warn_of_links(const NodeChain& nodes, World& world) {
  for (const graph::Node* node : nodes) {
    for (const finding::Finding& found : node->findings) {
      const finding::Row& row = finding::row(found.code);
      if (found.code == Code::backing_changed || found.code == Code::link_format_contradicts)
        world.complain({ErrorCode::refused,
                        fmt::format("{}: {}: {} {}", to_terminal(node->filename), row.slug,
                                    row.meaning, row.advice),
                        0});
    }
  }
}

Result<void> check_is_raw(const graph::Node& written, const graph::Node& overlay,
                          const edit::SideFolders& folders) {
  const auto& findings = written.findings;
  const auto found =
      std::find_if(findings.begin(), findings.end(), [](const finding::Finding& finding) {
        return finding.code == Code::link_format_contradicts;
      });
  if (found == findings.end())
    return {};
  return fail(
      ErrorCode::refused,
      fmt::format("'{0}' is {1}: a commit would overwrite it from its first byte, and the image in "
                  "it would be lost. If it is such an image, record its format with 'coldchain "
                  "rebase -u -b {2} -F qcow2 {3}'; if a guest wrote it into a raw disk, give "
                  "--force",
                  to_terminal(written.filename), found->detail, to_shell_word(written.name),
                  operand_of(overlay, folders)));
}

}  // namespace coldchain::cli
