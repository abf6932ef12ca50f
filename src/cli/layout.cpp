// SPDX-License-Identifier: MIT
// layout: who owns each byte of an image file.
#include "app.hpp"
#include "common_options.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/check/check.hpp>
#include <coldchain/report/layout_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct LayoutOptions {
  CommonOptions common;
  std::string image;
};

void options(CommandLine app, LayoutOptions& layout) {
  add_common_options(app, layout.common);
  app.add_option("IMAGE", layout.image, "Path, block device or json:{…}").required().type_name("");
  app.footer("Example: coldchain layout --output=json disk.qcow2");
}

// Where a refcount block cannot be read, that is a use of its own.
bool may_be_wrong(const check::CheckResult& result) {
  const finding::Findings& findings = result.findings.runs();
  return result.is_partial || result.findings.omitted() != 0 ||
         std::any_of(findings.begin(), findings.end(), [](const finding::Finding& finding) {
           const bool is_block = finding.code == finding::Code::refcount_table_unreadable &&
                                 finding.structure == finding::Structure::refcount_block;
           return !is_block && finding::row(finding.code).severity > finding::Severity::leak;
         });
}

Result<ExitStatus> run_verb(const LayoutOptions& options, World& world) {
  const OpenedTree tree =
      TRY(open_tree(options.common, options.image, false, world, graph::OpenFor::checking));
  TRY(warn_of_pending(options.common, *tree.top, world));
  const qcow2::Image* image = tree.top->qcow2_image();
  if (image == nullptr)
    return fail(ErrorCode::unsupported,
                fmt::format("'{}' is raw: all of it is guest data", to_terminal(options.image)));
  const bool is_refused = tell_refusal_of_damaged(*tree.top, world);
  const check::CheckResult result =
      TRY(check::check(*image, {.deep = false, .workers = world.workers()}));
  const std::uint64_t file_size = image->file().size();
  const report::Sink sink = world.sink();
  report::LayoutWriter writer(options.common.json(), sink);
  TRY(writer.begin(options.image, file_size));
  const std::vector<check::LayoutTotal> totals =
      check::layout(result, image->header().cluster_size(), file_size,
                    [&](const check::LayoutRange& range) { writer.add(range); });
  TRY(writer.end(totals, style_for(world, options.common.color)));
  if (may_be_wrong(result)) {
    world.complain({ErrorCode::corrupt,
                    fmt::format("'{}' is damaged, so the layout may be wrong; run 'coldchain check "
                                "--list' to see the findings",
                                to_terminal(options.image)),
                    0});
    return is_refused ? failure : corrupt;
  }
  if (result.findings.has(finding::Code::refcount_table_unreadable))
    world.complain(
        {ErrorCode::io_error,
         fmt::format("'{}': a refcount block cannot be read, so it is not known which of its "
                     "clusters are leaked; run 'coldchain check --list' to see the findings",
                     to_terminal(options.image)),
         0});
  return is_refused ? failure : success;
}

}  // namespace

void register_layout(CommandLine app, World& world, int& status) {
  add_looking_verb<LayoutOptions>(app, "layout",
                                  "Show which structure owns each byte of an image file", world,
                                  status, options, run_verb);
}

}  // namespace coldchain::cli
