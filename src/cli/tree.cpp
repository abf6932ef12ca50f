// SPDX-License-Identifier: MIT
// tree: the backing tree of images, or the forest of a folder.
#include "app.hpp"
#include "common_options.hpp"
#include "disks.hpp"
#include "host_path.hpp"
#include "option_values.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/report/forest_report.hpp>
#include <coldchain/report/libvirt_xml.hpp>
#include <coldchain/report/tree_report.hpp>
#include <coldchain/report/watermark_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct TreeOptions {
  CommonOptions common;
  bool fast = false;
  bool details = false;
  std::string glob;
  std::optional<std::string> xml;
  bool recursive = false;
  bool strict = false;
  std::optional<std::string> watermark;
  std::string extent = "4M";  // LVM's
  DiskOptions disks;
  std::vector<std::string> images;
};

void options(CommandLine app, TreeOptions& tree) {
  add_common_options(app, tree.common);
  app.add_flag("--fast", tree.fast, "Read headers only; allocation is what the file system says");
  app.add_flag("--details", tree.details,
               "Also print cluster size, features, permissions and times of each layer");
  app.remove_option("--output");
  app.add_option("--output", tree.common.output, "human, json, xml or domstats")
      .check(one_of({"human", "json", "xml", "domstats"}))
      .type_name("FORM");
  app.add_option("--xml", tree.xml,
                 "Print libvirt's XML: the storage volume (default), or the disk of a domain")
      .check(one_of({"volume", "domain"}))
      .type_name("volume|domain");
  app.add_flag("--recursive", tree.recursive,
               "In XML, give every layer its sizes, permissions, times and features");
  app.add_flag("--strict", tree.strict, "In XML, leave out what libvirt's schemas do not know");
  app.add_option("--watermark", tree.watermark,
                 "List the qcow2 images on block devices that have less than LIMIT free behind "
                 "their image end; the exit status is 3 if there is one")
      .type_name("LIMIT");
  app.add_option("--extent", tree.extent,
                 "With --watermark, the devices grow by multiples of SIZE (default 4M)")
      .type_name("SIZE");
  app.add_option("--glob", tree.glob,
                 "In folders, look only at files whose name matches this pattern, as in a shell")
      .type_name("PATTERN");
  add_disk_options(app, tree.disks);
  app.add_option("IMAGE", tree.images,
                 "Images, or folders to scan for images; with folders, block devices, too")
      .type_name("");
  app.footer("Examples: coldchain tree top.qcow2; coldchain tree --fast /var/lib/libvirt/images");
}

std::string current_folder() {
  std::error_code ignored;
  return std::filesystem::current_path(ignored).string();
}

// The options, translated.
struct TreeRequest {
  std::optional<analysis::WatermarkRule> watermark;
  std::optional<report::LibvirtXmlOptions> xml;
};

Result<TreeRequest> request_of(const TreeOptions& options) {
  TreeRequest request;
  const bool is_xml = options.common.output == "xml" || options.xml;
  if (is_xml && options.common.output != "xml" && options.common.output != "human")
    return fail(ErrorCode::invalid_argument, "--xml and --output do not go together");
  if ((options.recursive || options.strict) && !is_xml)
    return fail(ErrorCode::invalid_argument, "--recursive and --strict are for --output=xml");
  if (is_xml) {
    using Form = report::LibvirtXmlOptions::Form;
    request.xml = {.form = options.xml == "domain" ? Form::domain : Form::volume,
                   .recursive = options.recursive && !options.strict,
                   .strict = options.strict,
                   .folder = current_folder(),
                   .target = ""};
  }
  const bool shows_image_end = options.common.output == "domstats" || (is_xml && options.recursive);
  if (options.fast && shows_image_end)
    return fail(ErrorCode::invalid_argument,
                "--recursive and domstats show image ends, which --fast does not read");
  if (options.watermark) {
    if (options.fast)
      return fail(ErrorCode::invalid_argument,
                  "--watermark needs the image end, which --fast does not read");
    if (options.common.output == "domstats" || is_xml)
      return fail(ErrorCode::invalid_argument, "--watermark is for --output=human and json");
    request.watermark = {.limit = TRY(parse_size("--watermark", *options.watermark)),
                         .extent = TRY(parse_size("--extent", options.extent))};
    if (request.watermark->extent == 0)
      return fail(ErrorCode::invalid_argument, "--extent must not be 0");
  }
  return request;
}

report::Tree describe(const graph::Node& top, bool reads_tables, bool reads_chain, World& world) {
  report::Tree tree;
  for (const graph::Node* node : graph::chain_of(top)) {
    report::TreeLayer layer;
    layer.node = node;
    layer.sizes = analysis::sizes_of(*node);
    if (reads_tables && node->is_open())
      layer.usage = analysis::usage_of(*node);
    // On a block device, the allocation of a qcow2 image is its image end, if it is known exactly.
    const bool on_device = node->file && node->file->status().kind == io::FileKind::block_device;
    const bool has_exact_end =
        layer.usage && layer.usage->image_end && !layer.usage->image_end->is_lower_bound;
    if (on_device && has_exact_end)
      layer.sizes.allocation = layer.usage->image_end->offset.value;
    tree.push_back(std::move(layer));
  }
  if (!reads_chain)
    return tree;
  // A chain with a broken link has no guest view. The numbers of each layer are there.
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
  if (options.xml || options.common.output == "xml" || options.common.output == "domstats" ||
      options.watermark)
    return fail(ErrorCode::invalid_argument,
                "XML, domstats and --watermark are for images, not for folders");
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

// vda, vdb, …, vdz, vdaa: as the kernel counts disks.
std::string disk_name(std::size_t number) {
  std::string letters;
  for (std::size_t rest = number + 1; rest != 0; rest = (rest - 1) / 26)
    letters.insert(letters.begin(), static_cast<char>('a' + (rest - 1) % 26));
  return "vd" + letters;
}

bool mark_short_layers(report::Tree& tree, const analysis::WatermarkRule& rule) {
  bool has_short = false;
  for (report::TreeLayer& layer : tree) {
    if (layer.usage)
      layer.watermark = analysis::watermark_of(*layer.node, *layer.usage, rule);
    has_short = has_short || (layer.watermark && layer.watermark->is_short);
  }
  return has_short;
}

// An image that the user named, or a disk of the machine that --disk names.
struct Operand {
  std::string name;
  std::optional<NamedDisk> disk;
};

class TreeRun {
 public:
  TreeRun(const TreeOptions& options, const TreeRequest& request, World& world)
      : options_(options),
        request_(request),
        world_(world),
        style_(style_for(world, options.common.color)) {}

  Result<ExitStatus> run(const std::vector<Operand>& operands) {
    json_.begin_object().member("schema", "coldchain.tree").member("version", 1);
    json_.key("trees").begin_array();
    for (const Operand& operand : operands)
      TRY(show(operand));
    json_.end_array();
    if (options_.common.json()) {
      if (options_.disks.file)
        report::write_totals_json(json_, totals_);
      json_.end_object();
      TRY(world_.out(json_.take() + "\n"));
    } else if (options_.common.output == "domstats") {
      TRY(report::write_domstats(names_, trees_, current_folder(), world_.sink()));
    } else if (options_.disks.file && !request_.watermark) {
      TRY(report::write_totals_text(totals_, world_.sink()));
    }
    return status_ == success && has_short_ ? low_on_space : status_;
  }

 private:
  Result<void> show(const Operand& operand) {
    Result<OpenedDisk> disk =
        operand.disk ? open_disk(options_.common, options_.disks, *operand.disk, world_)
                     : open_operand(options_.common, options_.disks, operand.name, world_);
    if (!disk) {
      TRY(check_evidence(options_.common));
      world_.complain(disk.error());
      report::write_tree_error_json(json_, operand.name, disk.error());
      status_ = failure;
      return {};
    }
    const OpenedTree& opened = disk->tree;
    TRY(warn_of_pending(options_.common, *opened.top, world_));
    report::Tree tree = describe(*opened.top, !options_.fast, shows_provision(), world_);
    for (std::size_t i = 0; i < disk->names.size(); ++i)
      tree[i].name = disk->names[i];
    for (const report::TreeLayer& layer : tree) {
      if (layer.usage)
        (void)tell_refusal(layer.usage->findings, host_path(*layer.node), world_);
    }
    if (!is_sound(tree))
      status_ = failure;
    if (request_.watermark)
      has_short_ = mark_short_layers(tree, *request_.watermark) || has_short_;
    totals_.add(tree);
    return write(operand, std::move(tree), std::move(disk->tree));
  }

  // XML, domstats and the table of watermarks are about each layer alone.
  [[nodiscard]] bool shows_provision() const {
    const bool is_human = options_.common.output == "human" && !request_.watermark;
    return !options_.fast && !request_.xml && (is_human || options_.common.json());
  }

  Result<void> write(const Operand& operand, report::Tree tree, OpenedTree opened) {
    if (options_.common.json()) {
      report::write_tree_json(json_, operand.name, tree);
      return {};
    }
    names_.push_back(operand.name);
    if (options_.common.output == "domstats") {
      opened_.push_back(std::move(opened));
      trees_.push_back(std::move(tree));
      return {};
    }
    if (request_.xml) {
      report::LibvirtXmlOptions xml = *request_.xml;
      xml.target = disk_name(names_.size() - 1);
      const Result<void> written = report::write_libvirt_xml(tree, xml, world_.sink());
      return written ? written : fail(with_context(written.error(), to_terminal(operand.name)));
    }
    if (request_.watermark)
      return report::write_watermarks(tree, style_, world_.sink());
    if (names_.size() > 1)
      TRY(world_.out("\n"));
    if (operand.disk)
      TRY(world_.out(fmt::format("disk {}:\n", to_terminal(operand.name))));
    return report::write_tree_text(tree, options_.details, style_, world_.sink());
  }

  const TreeOptions& options_;
  const TreeRequest& request_;
  World& world_;
  report::Style style_;
  report::JsonWriter json_;
  report::TreeTotals totals_;
  ExitStatus status_ = success;
  bool has_short_ = false;
  std::vector<std::string> names_;  // of what was written
  // For domstats, whose first line is the number of layers.
  std::vector<OpenedTree> opened_;
  std::vector<report::Tree> trees_;
};

Result<ExitStatus> run_disks(const TreeOptions& options, World& world) {
  const TreeRequest request = TRY(request_of(options));
  if (request.xml)
    return fail(ErrorCode::invalid_argument,
                "XML is written for images, not for the disks that --disk reads");
  if (!options.glob.empty())
    return fail(ErrorCode::invalid_argument, "--glob is for folders, and --disk names a machine");
  std::vector<Operand> operands;
  const std::vector<NamedDisk> disks = TRY(read_disks(options.disks, options.images, world));
  for (const NamedDisk& named : disks) {
    // A drive without a medium has no tree. If it is named, that is an error.
    if (!named.disk.layers.empty() || !options.images.empty())
      operands.push_back({named.word, named});
  }
  return TreeRun(options, request, world).run(operands);
}

Result<ExitStatus> run_trees(const TreeOptions& options, World& world) {
  const TreeRequest request = TRY(request_of(options));
  std::vector<Operand> operands;
  for (const std::string& image : options.images)
    operands.push_back({image, std::nullopt});
  return TreeRun(options, request, world).run(operands);
}

Result<ExitStatus> run_verb(const TreeOptions& options, World& world) {
  const auto is_folder = [&](const std::string& path) {
    return !options.common.image_opts && world.is_directory(path);
  };
  TRY(check_disk_options(options.common, options.disks));
  if (options.disks.file)
    return run_disks(options, world);
  if (options.images.empty())
    return fail(ErrorCode::invalid_argument, "no IMAGE is given, nor a machine with --disk");
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
