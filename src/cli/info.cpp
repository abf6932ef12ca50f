// SPDX-License-Identifier: MIT
// info: qemu-img's, and the fields of a header, also of an image that cannot be opened.
#include "app.hpp"
#include "common_options.hpp"
#include "disks.hpp"
#include "host_path.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/analysis/image_info.hpp>
#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/header_fields.hpp>
#include <coldchain/report/header_report.hpp>
#include <coldchain/report/info_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct InfoOptions {
  CommonOptions common;
  bool backing_chain = false;
  bool header = false;
  DiskOptions disks;
  std::string image;
};

void options(CommandLine app, InfoOptions& info) {
  add_common_options(app, info.common);
  const Option backing_chain =
      app.add_flag("--backing-chain", info.backing_chain, "Describe every layer of the chain");
  app.add_flag("--header", info.header,
               "Describe every header field with its raw value, and whether it is valid")
      .excludes(backing_chain);
  add_disk_options(app, info.disks);
  app.add_option("IMAGE", info.image, "Path, block device or json:{…}").required().type_name("");
  app.footer("Example: coldchain info --backing-chain --output=json top.qcow2");
}

// The file is opened as raw: whatever its header says, it can be read.
Result<OpenedTree> open_as_bytes(const InfoOptions& info, const World& world) {
  CommonOptions common = info.common;
  common.format = "raw";
  common.no_follow = true;
  return open_tree(common, info.image, false, world);
}

Result<ExitStatus> describe_header(const InfoOptions& info, World& world) {
  const OpenedTree tree = TRY(open_as_bytes(info, world));
  if (!tree.top->is_open())
    return fail(*tree.top->gap);
  const std::vector<qcow2::HeaderField> fields = TRY(qcow2::header_fields(*tree.top->file));
  if (info.common.json())
    TRY(report::write_header_json(info.image, fields, world.sink()));
  else
    TRY(report::write_header_text(fields, style_for(world, info.common.color), world.sink()));
  const bool is_valid = std::all_of(fields.begin(), fields.end(),
                                    [](const auto& field) { return field.problem.empty(); });
  return is_valid ? success : failure;
}

// An image whose header is refused has fields all the same. --header does not take a disk.
Error with_advice(Error error, const InfoOptions& info, const World& world) {
  if (error.code == ErrorCode::locked || info.disks.file)
    return error;
  const Result<OpenedTree> tree = open_as_bytes(info, world);
  Bytes start(8);
  if (tree && tree->top->is_open() && tree->top->file->read_at(HostOffset{0}, start) &&
      qcow2::looks_like_qcow2(start))
    error.message += fmt::format("; 'coldchain info --header {}' shows every header field",
                                 to_shell_word(info.image));
  return error;
}

// Opens an image alone without --backing-chain. Opens the whole chain of a disk, because names
// count from the top.
Result<OpenedTree> open_image(const InfoOptions& info, World& world) {
  if (info.disks.file)
    return TRY(open_operand(info.common, info.disks, info.image, world)).tree;
  return open_tree(info.common, info.image, info.backing_chain, world);
}

Result<ExitStatus> run_verb(const InfoOptions& info, World& world) {
  TRY(check_disk_options(info.common, info.disks));
  if (info.header && info.disks.file)
    return fail(ErrorCode::invalid_argument, "--header cannot be used with --disk");
  if (info.header)
    return describe_header(info, world);
  Result<OpenedTree> opened = open_image(info, world);
  if (!opened) {
    TRY(check_evidence(info.common));
    return fail(with_advice(opened.error(), info, world));
  }
  const OpenedTree tree = std::move(*opened);
  TRY(warn_of_pending(info.common, *tree.top, world));
  std::vector<analysis::ImageInfo> images;
  std::vector<const graph::Node*> nodes = graph::chain_of(*tree.top);
  if (!info.backing_chain)
    nodes.resize(1);
  for (const graph::Node* node : nodes) {
    // A missing data file does not hide the metadata; a missing layer would.
    if (!node->is_open())
      return fail(node == tree.top.get() ? with_advice(*node->gap, info, world) : *node->gap);
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

void register_info(CommandLine app, World& world, int& status) {
  add_looking_verb<InfoOptions>(app, "info", "Describe an image, as qemu-img info does", world,
                                status, options, run_verb);
}

}  // namespace coldchain::cli
