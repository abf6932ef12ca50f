// SPDX-License-Identifier: MIT
// tree: the backing tree of images, or the forest of a folder.
#include "app.hpp"
#include "common_options.hpp"
#include "host_path.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "verb.hpp"

#include <algorithm>
#include <map>
#include <mutex>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/report/forest_report.hpp>
#include <coldchain/report/tree_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct TreeOptions {
  CommonOptions common;
  bool fast = false;
  bool details = false;
  std::string glob;
  std::vector<std::string> images;
};

void options(CommandLine app, TreeOptions& tree) {
  add_common_options(app, tree.common);
  app.add_flag("--fast", tree.fast, "Read headers only; allocation is what the file system says");
  app.add_flag("--details", tree.details,
               "Also print cluster size, features, permissions and times of each layer");
  app.add_option("--glob", tree.glob,
                 "In folders, look only at files whose name matches this pattern, as in a shell")
      .type_name("PATTERN");
  app.add_option("IMAGE", tree.images,
                 "Images, or folders to scan for images; with folders, block devices, too")
      .required()
      .type_name("");
  app.footer("Examples: coldchain tree top.qcow2; coldchain tree --fast /var/lib/libvirt/images");
}

report::Tree describe(const graph::Node& top, bool fast, World& world) {
  report::Tree tree;
  for (const graph::Node* node : graph::chain_of(top)) {
    report::TreeLayer layer;
    layer.node = node;
    layer.sizes = analysis::sizes_of(*node);
    if (!fast && node->is_open())
      layer.usage = analysis::usage_of(*node);
    // What a qcow2 image uses of a block device is known once its refcounts have been read.
    const bool on_device = node->file && node->file->status().kind == io::FileKind::block_device;
    if (on_device && layer.usage && layer.usage->image_end)
      layer.sizes.allocation = layer.usage->image_end->offset.value;
    tree.push_back(std::move(layer));
  }
  if (fast)
    return tree;
  // A chain with a broken link has no guest view; what each layer holds has been told all the same.
  const Result<graph::Chain> chain = graph::Chain::make(top);
  if (!chain)
    return tree;
  const Result<analysis::Provision> provision =
      analysis::provision_of(*chain, {{0}, {chain->guest_size()}}, world.workers());
  if (!provision)
    return tree;
  for (std::size_t i = 0; i < tree.size(); ++i)
    tree[i].provides = provision->layers[i];
  tree.front().provides_elsewhere = provision->absent;
  return tree;
}

bool is_sound(const report::Tree& tree) {
  return std::all_of(tree.begin(), tree.end(), [](const report::TreeLayer& layer) {
    return finding::worst(layer.node->findings) == finding::Severity::note &&
           (!layer.usage || finding::worst(layer.usage->findings) == finding::Severity::note);
  });
}

Result<ExitStatus> run_forest(const TreeOptions& options, const graph::ScanRequest& request,
                              World& world) {
  TRY(check_no_secrets(options.common));
  if (options.details)
    return fail(ErrorCode::invalid_argument,
                "--details is for images; for a folder, use '--output=json'");
  if (options.common.format || options.common.probe != "qemu")
    return fail(ErrorCode::invalid_argument,
                "-f and --probe are for images; in a folder, what begins like qcow2 is qcow2 "
                "unless another image there records it as raw");
  const io::OpenPolicy policy = policy_of(options.common);
  const auto files = TRY(world.files(policy));
  report::ForestUsage usage;
  std::map<std::string, Error> pending;
  std::mutex mutex;
  const graph::Inspect inspect = [&](const std::string& path, const graph::Node& node) {
    if (std::optional<Error> warning = pending_warning(options.common, node)) {
      const std::lock_guard lock(mutex);
      pending.insert_or_assign(path, std::move(*warning));
    }
    if (options.fast)
      return;
    analysis::NodeUsage used = analysis::usage_of(node);
    const std::lock_guard lock(mutex);
    usage.insert_or_assign(path, std::move(used));
  };
  graph::Forest forest = TRY(graph::scan(*files, policy, request, world.workers(), inspect));
  TRY(check_evidence(options.common));
  for (const auto& [path, warning] : pending)
    world.complain(warning);
  bool sound = forest.unreadable.empty();
  for (graph::ForestImage& image : forest.images) {
    if (const auto used = usage.find(image.path); used != usage.end())
      image.findings.insert(image.findings.end(), used->second.findings.begin(),
                            used->second.findings.end());
    (void)tell_refusal(image.findings, image.path, world);
    sound = sound && finding::worst(image.findings) == finding::Severity::note;
  }
  if (options.common.json())
    TRY(report::write_forest_json(forest, usage, world.sink()));
  else
    TRY(report::write_forest_text(forest, usage, style_for(world, options.common.color),
                                  world.sink()));
  for (const Error& error : forest.unreadable)
    world.complain(error);
  return sound ? success : failure;
}

Result<ExitStatus> run_trees(const TreeOptions& options, World& world) {
  ExitStatus status = success;
  report::JsonWriter json;
  json.begin_object().member("schema", "coldchain.tree").member("version", 1);
  json.key("trees").begin_array();
  const report::Style style = style_for(world, options.common.color);
  bool first = true;
  for (const std::string& image : options.images) {
    const Result<OpenedTree> opened = open_tree(options.common, image, true, world);
    if (!opened) {
      TRY(check_evidence(options.common));
      world.complain(opened.error());
      report::write_tree_error_json(json, image, opened.error());
      status = failure;
      continue;
    }
    TRY(warn_of_pending(options.common, *opened->top, world));
    const report::Tree tree = describe(*opened->top, options.fast, world);
    for (const report::TreeLayer& layer : tree) {
      if (layer.usage)
        (void)tell_refusal(layer.usage->findings, host_path(*layer.node), world);
    }
    if (!is_sound(tree))
      status = failure;
    if (options.common.json()) {
      report::write_tree_json(json, image, tree);
      continue;
    }
    if (!first)
      TRY(world.out("\n"));
    TRY(report::write_tree_text(tree, options.details, style, world.sink()));
    first = false;
  }
  json.end_array().end_object();
  if (options.common.json())
    TRY(world.out(json.take() + "\n"));
  return status;
}

Result<ExitStatus> run_verb(const TreeOptions& options, World& world) {
  const auto is_folder = [&](const std::string& path) {
    return !options.common.image_opts && world.is_directory(path);
  };
  graph::ScanRequest request{.folders = {}, .glob = options.glob};
  for (const std::string& image : options.images)
    (is_folder(image) ? request.folders : request.files).push_back(image);
  if (!request.folders.empty())
    return run_forest(options, request, world);
  if (!options.glob.empty())
    return fail(ErrorCode::invalid_argument, "--glob is for folders, and none is given");
  return run_trees(options, world);
}

}  // namespace

void register_tree(CommandLine app, World& world, int& status) {
  add_looking_verb<TreeOptions>(app, "tree",
                                "Draw the backing tree of images, or of all images in a folder",
                                world, status, options, run_verb);
}

}  // namespace coldchain::cli
