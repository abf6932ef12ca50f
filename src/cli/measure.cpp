// SPDX-License-Identifier: MIT
// measure: qemu-img's. How large the file must be that an image is converted to.
#include "app.hpp"
#include "common_options.hpp"
#include "create_options.hpp"
#include "disks.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <coldchain/analysis/measure.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/measure_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct MeasureOptions {
  CommonOptions common;
  std::string target_format = "raw";
  std::vector<std::string> create;
  std::optional<std::string> snapshot;
  std::optional<std::string> size;
  DiskOptions disks;
  std::optional<std::string> image;
};

void options(CommandLine app, MeasureOptions& measure) {
  add_common_options(app, measure.common);
  app.add_option("-O", measure.target_format, "The format to be written: qcow2 or raw")
      .type_name("FMT");
  app.add_option("-o", measure.create, "Options of the new image: name=value,…")
      .type_name("OPTIONS")
      .takes_one_word();
  app.add_option("-l,--snapshot", measure.snapshot, "An internal snapshot, by ID or name")
      .type_name("ID");
  app.add_option("--size", measure.size, "Measure an empty disk of N bytes (k, M, G, T suffix)")
      .type_name("N");
  add_disk_options(app, measure.disks);
  app.add_option("IMAGE", measure.image, "Path, block device or json:{…}").type_name("");
  app.footer("Example: coldchain measure -O qcow2 disk.raw");
}

Result<void> check_usage(const MeasureOptions& measure) {
  TRY(check_disk_options(measure.common, measure.disks));
  const bool is_of_an_image =
      measure.common.format || measure.common.image_opts || measure.snapshot;
  if (!measure.image && measure.disks.file)
    return fail(ErrorCode::invalid_argument, "--disk needs the name of a disk, such as 'vda'");
  if (!measure.image && is_of_an_image)
    return fail(ErrorCode::invalid_argument,
                "--image-opts, -f, and -l can only be used with a filename argument.");
  if (measure.image && measure.size)
    return fail(ErrorCode::invalid_argument, "--size N cannot be used together with a filename.");
  if (!measure.image && !measure.size)
    return fail(ErrorCode::invalid_argument, "Either --size N or one filename must be specified.");
  if (measure.target_format != "raw" && measure.target_format != "qcow2")
    return fail(ErrorCode::unsupported,
                fmt::format("'{}': only the sizes of qcow2 and raw images are known",
                            to_terminal(measure.target_format)));
  return {};
}

Result<analysis::Measure> measure_image(const MeasureOptions& measure,
                                        const analysis::NewImage& made, bool& is_refused,
                                        World& world) {
  const bool is_raw = measure.target_format == "raw";
  if (measure.size) {
    const std::uint64_t size = TRY(parse_size("image size", *measure.size));
    return is_raw ? analysis::measure_raw(size) : analysis::measure_qcow2(made, size);
  }
  const OpenedDisk opened = TRY(open_operand(measure.common, measure.disks, *measure.image, world));
  const OpenedTree& tree = opened.tree;
  TRY(warn_of_pending(measure.common, *tree.top, world));
  is_refused = tell_refusals(*tree.top, world);
  const graph::Chain chain = TRY(graph::Chain::make(*tree.top, {.snapshot = measure.snapshot}));
  if (is_raw)
    return analysis::measure_raw(chain.guest_size());
  analysis::Measure result = TRY(analysis::measure_qcow2(made, chain, world.workers()));
  complain_of_unreadable(chain, result.unreadable, world);
  return result;
}

Result<ExitStatus> run_verb(const MeasureOptions& measure, World& world) {
  TRY(check_usage(measure));
  const analysis::NewImage made = TRY(parse_create_options(
      measure.target_format, fmt::format("{}", fmt::join(measure.create, ","))));
  bool is_refused = false;
  const analysis::Measure result = TRY(measure_image(measure, made, is_refused, world));
  TRY(world.out(measure.common.json() ? report::measure_json(result)
                                      : report::measure_text(result)));
  return is_refused || result.unreadable.has_damaged_tables() ? failure : success;
}

}  // namespace

void register_measure(CommandLine app, World& world, int& status) {
  add_looking_verb<MeasureOptions>(app, "measure",
                                   "Compute the size of a converted image, as qemu-img measure",
                                   world, status, options, run_verb);
}

}  // namespace coldchain::cli
