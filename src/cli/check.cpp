// SPDX-License-Identifier: MIT
// check: qemu-img's, and what it does not look for; of one image, of a chain, of many.
#include "app.hpp"
#include "common_options.hpp"
#include "option_values.hpp"
#include "pending_warning.hpp"
#include "progress.hpp"
#include "repair.hpp"
#include "verb.hpp"

#include <algorithm>
#include <set>

#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/check/admission.hpp>
#include <coldchain/check/check.hpp>
#include <coldchain/check/traces.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/report/check_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

using report::CheckedImage;
using report::Verdict;

struct CheckVerbOptions {
  CommonOptions common;
  std::string cache;  // -T: accepted, as files are read through the system's cache
  bool quiet = false;
  bool list = false;
  bool deep = false;
  bool backing_chain = false;
  bool shows_progress = false;
  unsigned jobs = 0;
  std::vector<std::string> deny;
  RepairRequest repair;  // its tier is empty where nothing is to be mended
  std::vector<std::string> images;
};

void options(CommandLine app, CheckVerbOptions& check) {
  add_common_options(app, check.common);
  app.remove_option("--output");
  app.add_option("--output", check.common.output, "human, json, sarif or junit")
      .check(one_of({"human", "json", "sarif", "junit"}))
      .type_name("FORM");
  app.add_option("-T", check.cache, "Accepted and ignored").type_name("CACHE");
  app.add_flag("-q", check.quiet, "Print no summary; findings still go to standard error");
  app.add_flag("--list", check.list, "List every finding, one per line, with notes");
  app.add_flag("--deep", check.deep, "Decompress every compressed cluster");
  app.add_flag("--backing-chain", check.backing_chain, "Check every layer, and the links");
  add_progress_option(app, check.shows_progress);
  app.add_option("--jobs", check.jobs, "Check N images at the same time")
      .check(number_from(1, 64))
      .type_name("N");
  app.add_option("--deny", check.deny,
                 "Findings that refuse the image, by name or number; 'upload' is a set of them")
      .delimiter(',')
      .takes_one_word()  // the next word is an image
      .type_name("CODE,…");
  add_repair_options(app, check.repair);
  app.add_option("IMAGE", check.images, "Images, or folders whose images are checked")
      .required()
      .type_name("");
  app.footer(
      "Examples: coldchain check --deep disk.qcow2; coldchain check --no-follow --deny "
      "upload new.qcow2; coldchain check --jobs 4 /var/lib/libvirt/images");
}

Result<std::set<finding::Code>> parse_denials(const std::vector<std::string>& words) {
  std::set<finding::Code> codes;
  for (const std::string& word : words) {
    if (word == "upload") {
      const std::vector<finding::Code> all = check::default_denials();
      codes.insert(all.begin(), all.end());
      continue;
    }
    const auto& rows = finding::catalogue();
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const finding::Row& candidate) {
      return candidate.slug == word ||
             std::to_string(static_cast<unsigned>(candidate.code)) == word;
    });
    if (row == rows.end())
      return fail(ErrorCode::invalid_argument,
                  fmt::format("--deny: there is no finding '{}'; docs/findings.md lists them all",
                              to_terminal(word)));
    codes.insert(row->code);
  }
  return codes;
}

// Whether an image is not only checked, but may be refused: then also one that has no checks is
// looked at.
bool is_for_admission(const CheckVerbOptions& options, const std::set<finding::Code>& denials) {
  return options.common.no_follow || !denials.empty();
}

struct Operand {
  std::string name;
  bool is_found = false;  // in a folder: its name is a path, whatever is in it
};

// Of one operand.
struct Looked {
  std::vector<CheckedImage> images;  // one element per layer with --backing-chain
  std::vector<Error> pending;        // changes of them that were interrupted
};

// Looks at images, prints nothing: several may be looked at at once.
class Checker {
 public:
  // So many findings are kept of each image; the others are counted.
  Checker(const CheckVerbOptions& options, std::set<finding::Code> denials,
          std::size_t most_findings, const World& world)
      : options_(options),
        denials_(std::move(denials)),
        most_findings_(most_findings),
        world_(world) {}

  // `progress`, which may be empty, is that of the image itself, not of its layers.
  [[nodiscard]] Looked look_at(const Operand& image, unsigned workers,
                               const Progress& progress) const {
    const graph::OpenFor purpose =
        is_for_admission(options_, denials_) ? graph::OpenFor::admission : graph::OpenFor::checking;
    CommonOptions common = options_.common;
    common.is_path = image.is_found;
    const Result<OpenedTree> tree = open_tree(common, image.name, true, world_, purpose);
    if (!tree)
      return {{failed(image.name, tree.error())}, {}};
    Looked looked = {{look_at_node(*tree->top, image.name, workers, progress)}, {}};
    std::vector<CheckedImage>& checked = looked.images;
    note_pending(*tree->top, looked);
    for (const graph::Node* node : graph::chain_of(*tree->top)) {
      const bool is_layer = options_.backing_chain && node != tree->top.get() &&
                            (node->is_open() || !options_.common.no_follow);
      if (is_layer) {
        note_pending(*node, looked);
        CheckedImage layer = look_at_node(*node, node->filename, workers, {});
        // A raw layer below has nothing that could be wrong.
        if (node->raw_image() == nullptr || !layer.denied.empty())
          checked.push_back(std::move(layer));
      }
      // What lies below cannot be opened: the image was checked all the same. Or the image itself
      // is of a format that is not read.
      if (node->gap && (!options_.common.no_follow || !tree->top->is_open()))
        add_failure(checked.back(), node->gap->message);
    }
    return looked;
  }

 private:
  void note_pending(const graph::Node& image, Looked& looked) const {
    if (std::optional<Error> warning =
            pending_warning(options_.common, image, options_.repair.folders))
      looked.pending.push_back(std::move(*warning));
  }

  static CheckedImage failed(const std::string& image, const Error& error) {
    CheckedImage checked;
    checked.filename = image;
    add_failure(checked, error.message);
    return checked;
  }

  static void add_failure(CheckedImage& checked, std::string message) {
    checked.failures.push_back(std::move(message));
    if (checked.denied.empty())
      checked.verdict = Verdict::failed;
  }

  [[nodiscard]] CheckedImage look_at_node(const graph::Node& node, const std::string& name,
                                          unsigned workers, const Progress& progress) const {
    CheckedImage checked = node.qcow2_image() != nullptr
                               ? look_at_qcow2(*node.qcow2_image(), name, workers, progress)
                               : look_at_other(node, name);
    if (options_.backing_chain)
      add_of_node(checked, node.findings);
    if (is_for_admission(options_, denials_)) {
      if (const Result<finding::Findings> admission = check::check_admission(node))
        checked.findings.insert(checked.findings.end(), admission->begin(), admission->end());
      else
        add_failure(checked, admission.error().message);
    }
    judge(checked);
    return checked;
  }

  [[nodiscard]] CheckedImage look_at_qcow2(const qcow2::Image& image, const std::string& name,
                                           unsigned workers, const Progress& progress) const {
    Result<check::CheckResult> result = check::check(image, {.deep = options_.deep,
                                                             .workers = workers,
                                                             .most_findings = most_findings_,
                                                             .progress = progress});
    if (!result)
      return failed(name, result.error());
    CheckedImage checked =
        report::checked_image(name, result->counts, std::move(result->findings), result->failure);
    checked.is_partial = result->is_partial;
    return checked;
  }

  [[nodiscard]] CheckedImage look_at_other(const graph::Node& node, const std::string& name) const {
    CheckedImage checked;
    checked.filename = name;
    checked.format = node.format;
    checked.verdict = node.is_open() ? Verdict::no_checks : Verdict::failed;
    if (node.is_open() && node.raw_image() != nullptr && node.file != nullptr)
      checked.findings = check::traces_in_raw(*node.file, options_.deep);
    return checked;
  }

  // What is wrong with the link that led to a layer. What the check has said is not told twice.
  static void add_of_node(CheckedImage& checked, const finding::Findings& findings) {
    for (const finding::Finding& finding : findings) {
      const bool is_known =
          std::any_of(checked.findings.begin(), checked.findings.end(),
                      [&](const finding::Finding& other) { return other.code == finding.code; });
      if (!is_known)
        checked.findings.push_back(finding);
    }
  }

  // What was added to the check's own findings, and what the caller refuses.
  void judge(CheckedImage& checked) const {
    for (const finding::Finding& finding : checked.findings) {
      if (denials_.contains(finding.code))
        checked.denied.push_back(finding);
    }
    if (!checked.denied.empty())
      checked.verdict = Verdict::corrupt;
    else if (finding::worst(checked.findings) >= finding::Severity::corruption)
      checked.verdict = std::max(checked.verdict, Verdict::corrupt);
  }

  const CheckVerbOptions& options_;
  std::set<finding::Code> denials_;
  std::size_t most_findings_;
  const World& world_;
};

// The verdict on all images together. That one is refused outweighs that another cannot be checked.
class Total {
 public:
  void add(Verdict verdict) { worst_ = std::max(worst_, verdict); }
  void add(const std::vector<CheckedImage>& images) {
    for (const CheckedImage& image : images) {
      add(image.verdict);
      is_denied_ = is_denied_ || !image.denied.empty();
    }
  }
  [[nodiscard]] ExitStatus status() const {
    return exit_status(is_denied_ ? Verdict::corrupt : worst_);
  }

 private:
  Verdict worst_ = Verdict::clean;
  bool is_denied_ = false;
};

// As qemu-img tells of one image.
Result<void> tell(const CheckVerbOptions& options, const CheckedImage& image, bool is_one_of_many,
                  World& world) {
  const report::Style style = style_for(world, options.common.color);
  const report::Sink to_err = [&](std::string_view text) -> Result<void> {
    world.err(text);
    return {};
  };
  if (image.verdict == Verdict::no_checks) {
    world.complain({ErrorCode::unsupported, "This image format does not support checks", 0});
    TRY(report::write_check_notes(image, style, to_err));
  }
  TRY(report::write_check_messages(image, world.out_is_terminal(), style, to_err));
  // Nothing is counted in an image that could not be opened, or that is not qcow2.
  const bool has_counts = image.counts.image_end_offset != 0;
  const bool is_described = has_counts || !image.findings.empty();
  const bool has_summary = has_counts || !image.denied.empty();
  if (has_summary && !options.quiet && !options.common.json())
    TRY(report::write_check_text(image, world.sink()));
  if (is_described && options.list && !options.common.json())
    TRY(report::write_check_list(image, style, world.sink()));
  else if (!options.quiet)
    world.err(report::check_hints(image));
  if (is_described && !options.quiet && options.common.json())
    TRY(report::write_check_json(image, is_one_of_many, world.sink()));
  for (const std::string& failure : image.failures)
    world.complain({ErrorCode::corrupt, failure, 0});
  return {};
}

bool is_for_ci(const CheckVerbOptions& options) {
  return options.common.output == "sarif" || options.common.output == "junit";
}

report::CiWriter::Form ci_form(const CheckVerbOptions& options) {
  return options.common.output == "sarif" ? report::CiWriter::Form::sarif
                                          : report::CiWriter::Form::junit;
}

Result<void> tell_for_ci(const std::vector<CheckedImage>& images, report::CiWriter& writer,
                         World& world) {
  for (const CheckedImage& image : images) {
    for (const std::string& failure : image.failures)
      world.complain({ErrorCode::corrupt, failure, 0});
    TRY(writer.add(image));
  }
  return {};
}

// The images below the folders, without those that another records as raw. For admission every file
// counts: what one upload records of another vouches for nothing. What cannot be read is told, and
// is a failure.
Result<std::vector<Operand>> expand(const CheckVerbOptions& options, bool wants_all, Total& total,
                                    World& world) {
  std::vector<Operand> operands;
  for (const std::string& name : options.images) {
    if (options.common.image_opts || !world.is_directory(name)) {
      operands.push_back({name});
      continue;
    }
    io::OpenPolicy policy = policy_of(options.common);
    policy.test_locks = false;
    const auto files = TRY(world.files(policy));
    graph::Forest forest = TRY(graph::scan(*files, policy, {.folders = {name}}, world.workers(),
                                           [](const std::string&, const graph::Node&) {}));
    TRY(check_evidence(options.common));
    for (const Error& error : forest.unreadable) {
      world.complain(error);
      total.add(Verdict::failed);
    }
    std::vector<std::string> found;
    for (graph::OtherFile& other : forest.others) {
      if (wants_all)
        found.push_back(std::move(other.path));
    }
    for (const graph::ForestImage& image : forest.images) {
      if (image.in_scan && (wants_all || image.format == "qcow2"))
        found.push_back(image.path);
    }
    std::sort(found.begin(), found.end());
    for (std::string& path : found)
      operands.push_back({std::move(path), true});
  }
  return operands;
}

Result<ExitStatus> run_many(const CheckVerbOptions& options, const std::vector<Operand>& operands,
                            const Checker& checker, Total total, World& world) {
  const unsigned jobs = options.jobs != 0 ? options.jobs : world.workers();
  const report::Style style = style_for(world, options.common.color);
  const report::Sink sink = world.sink();
  report::CiWriter writer(ci_form(options), COLDCHAIN_VERSION, sink);
  std::size_t next = 0;
  OrderedPipeline<std::size_t, Looked> pipeline(
      [&] { return next < operands.size() ? std::optional(next++) : std::nullopt; },
      [&](std::size_t i, unsigned) -> Result<Looked> {
        return checker.look_at(operands[i], 1, {});
      },
      jobs,
      1);  // each may have many findings
  ProgressMeter meter(world, options.shows_progress, 0, ProgressUnit::images);
  const Progress progress = meter.progress();
  ProgressPoint point{.total = operands.size()};
  (void)progress(point);
  const auto tell_all = [&](const Looked& looked) -> Result<void> {
    ++point.done;
    (void)progress(point);
    for (const Error& warning : looked.pending)
      world.complain(warning);
    const std::vector<CheckedImage>& images = looked.images;
    total.add(images);
    if (is_for_ci(options))
      return tell_for_ci(images, writer, world);
    for (const CheckedImage& image : images) {
      if (options.common.json()) {
        TRY(report::write_check_json(image, true, world.sink()));
        continue;
      }
      if (!options.quiet)
        TRY(world.out(report::check_line(image, style)));
      if (options.list)
        TRY(report::write_check_list(image, style, world.sink()));
    }
    return {};
  };
  if (is_for_ci(options))
    TRY(writer.begin());
  TRY(pipeline.run(tell_all));
  meter.finish();
  if (is_for_ci(options))
    TRY(writer.end());
  return total.status();
}

bool asks_for_repair(const RepairRequest& repair) {
  return !repair.tier.empty() || repair.dry_run || repair.free_orphans || repair.rebuild_mapping ||
         repair.no_undo || !repair.folders.undo.empty() || !repair.links.empty();
}

Result<ExitStatus> repair(const CheckVerbOptions& options, World& world) {
  if (options.repair.tier.empty())
    return fail(ErrorCode::invalid_argument,
                "--dry-run, --free-orphans, --rebuild-mapping, --undo and --no-undo are for a "
                "repair: add -r leaks or -r all");
  if (options.images.size() != 1 || options.backing_chain || !options.deny.empty() || options.deep)
    return fail(ErrorCode::invalid_argument,
                "-r repairs one image; it cannot be used with --backing-chain, --deep, --deny or "
                "more images");
  if (options.common.access_times->is_evidence)
    return fail(ErrorCode::invalid_argument,
                "-r changes the image, and --evidence forbids that; 'coldchain plan repair "
                "--evidence' shows what a repair would do");
  CommonOptions common = options.common;
  common.access_times.reset();
  common.policy.access_time_guard = {};
  RepairRequest request = options.repair;
  request.image = options.images.front();
  request.quiet = options.quiet;
  request.list = options.list;
  request.shows_progress = options.shows_progress;
  return run_repair(common, request, world);
}

Result<ExitStatus> run_verb(const CheckVerbOptions& options, World& world) {
  TRY(check_no_secrets(options.common));
  if (asks_for_repair(options.repair))
    return repair(options, world);
  const std::set<finding::Code> denials = TRY(parse_denials(options.deny));
  Total total;
  const std::vector<Operand> operands =
      TRY(expand(options, is_for_admission(options, denials), total, world));
  const bool is_one =
      options.images.size() == 1 && operands.size() == 1 && !operands.front().is_found;
  constexpr std::size_t most_of_one = 1 << 18;
  constexpr std::size_t most_of_each = 1 << 14;  // several images are looked at at once
  const Checker checker(options, denials, is_one ? most_of_one : most_of_each, world);
  if (!is_one)
    return run_many(options, operands, checker, total, world);
  ProgressMeter meter(world, options.shows_progress);
  const Looked looked = checker.look_at(operands.front(), world.workers(), meter.progress());
  meter.finish();
  for (const Error& warning : looked.pending)
    world.complain(warning);
  const std::vector<CheckedImage>& layers = looked.images;
  total.add(layers);
  if (is_for_ci(options)) {
    const report::Sink sink = world.sink();
    report::CiWriter writer(ci_form(options), COLDCHAIN_VERSION, sink);
    TRY(writer.begin());
    TRY(tell_for_ci(layers, writer, world));
    TRY(writer.end());
    return total.status();
  }
  for (const CheckedImage& layer : layers) {
    if (layers.size() > 1 && !options.quiet && !options.common.json())
      TRY(world.out(fmt::format("{}image: {}\n", &layer == layers.data() ? "" : "\n",
                                to_terminal(layer.filename))));
    TRY(tell(options, layer, layers.size() > 1, world));
  }
  return total.status();
}

}  // namespace

void register_check(CommandLine app, World& world, int& status) {
  add_looking_verb<CheckVerbOptions>(app, "check", "Check images, as qemu-img check and more",
                                     world, status, options, run_verb);
}

}  // namespace coldchain::cli
