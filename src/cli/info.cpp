// SPDX-License-Identifier: MIT
// info: qemu-img's.
#include "app.hpp"
#include "common_options.hpp"
#include "host_path.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "verb.hpp"

#include <coldchain/analysis/image_info.hpp>
#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/info_report.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct InfoOptions {
  CommonOptions common;
  bool backing_chain = false;
  std::string image;
};

void options(CLI::App& app, InfoOptions& info) {
  add_common_options(app, info.common);
  app.add_flag("--backing-chain", info.backing_chain, "Describe every layer of the chain");
  app.add_option("IMAGE", info.image, "Path, block device or json:{…}")->required()->type_name("");
  app.footer("Example: coldchain info --backing-chain --output=json top.qcow2");
}

Result<ExitStatus> run_verb(const InfoOptions& info, World& world) {
  const OpenedTree tree = TRY(open_tree(info.common, info.image, info.backing_chain, world));
  warn_of_pending(info.common, *tree.top, world);
  std::vector<analysis::ImageInfo> images;
  const std::vector<const graph::Node*> nodes = graph::chain_of(*tree.top);
  for (const graph::Node* node : nodes) {
    // A missing data file does not hide the metadata; a missing layer would.
    if (!node->is_open())
      return fail(*node->gap);
    images.push_back(analysis::image_info(*node));
    if (info.backing_chain && node->gap && node->gap->code == ErrorCode::refused)
      return fail(*node->gap);
  }
  // What is missing from the text below must not look as if it were not there.
  bool is_refused = false;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const analysis::ImageInfo& image = images[i];
    is_refused = tell_refusal(image.findings, host_path(*nodes[i]), world) || is_refused;
    for (const finding::Finding& found : image.findings) {
      const finding::Row& row = finding::row(found.code);
      if (row.severity > finding::Severity::note && !analysis::is_refusal(found.code))
        world.complain({ErrorCode::corrupt,
                        fmt::format("{}: {}: {}. {}", to_terminal(image.filename), row.slug,
                                    found.detail, row.advice),
                        0});
    }
  }
  if (info.common.json())
    TRY(report::write_info_json(images, info.backing_chain, world.sink()));
  else
    TRY(report::write_info_text(images, world.sink()));
  return is_refused ? failure : success;
}

}  // namespace

void register_info(CLI::App& app, World& world, int& status) {
  add_verb<InfoOptions>(app, "info", "Describe an image, as qemu-img info does", world, status,
                        options, run_verb);
}

}  // namespace coldchain::cli
