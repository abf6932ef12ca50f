// SPDX-License-Identifier: MIT
// map: qemu-img's, and what an NBD client would see.
#include "app.hpp"
#include "common_options.hpp"
#include "disks.hpp"
#include "option_values.hpp"
#include "pending_warning.hpp"
#include "refusals.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/analysis/contexts.hpp>
#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/analysis/usage.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/contexts_report.hpp>
#include <coldchain/report/map_report.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct MapOptions {
  CommonOptions common;
  std::optional<std::string> start_offset;
  std::optional<std::string> max_length;
  bool provenance = false;
  bool summary = false;
  std::optional<std::string> layer;
  std::optional<std::string> snapshot;
  std::optional<std::string> context;
  DiskOptions disks;
  std::string image;
};

std::string layer_number_or_name(std::string& value) {
  return value.ends_with(']') ? "" : number_from(0, graph::max_layers - 1)(value);
}

void options(CommandLine app, MapOptions& map) {
  add_common_options(app, map.common);
  app.add_option("-s,--start-offset", map.start_offset, "Start here (bytes; k, M, G, T suffix)")
      .type_name("OFFSET");
  app.add_option("-l,--max-length", map.max_length, "Show at most LENGTH bytes")
      .type_name("LENGTH");
  Option provenance =
      app.add_flag("--provenance", map.provenance, "Show each extent's layer, file and kind");
  Option summary = app.add_flag("--summary", map.summary, "Totals per layer and kind");
  Option context =
      app.add_option("--context", map.context,
                     "As an NBD client sees it: base:allocation, qemu:allocation-depth or "
                     "qemu:joint-allocation")
          .type_name("NAME");
  provenance.excludes(summary);
  provenance.excludes(context);
  summary.excludes(context);
  app.add_option(
         "--layer", map.layer,
         "One layer alone, as if it had no backing file; 0 is the top. With --disk also the "
         "name of the layer")
      .check(layer_number_or_name)
      .type_name("N|NAME");
  app.add_option("--snapshot", map.snapshot, "An internal snapshot of the top, by ID or name")
      .type_name("ID");
  add_disk_options(app, map.disks);
  app.add_option("IMAGE", map.image, "Path, block device or json:{…}").required().type_name("");
  app.footer("Example: coldchain map --summary top.qcow2");
}

Result<std::optional<std::size_t>> wanted_layer(const MapOptions& map, const OpenedDisk& opened) {
  if (!map.layer)
    return std::nullopt;
  if (!map.layer->ends_with(']'))
    return std::stoul(*map.layer);  // checked
  if (opened.names.empty())
    return fail(ErrorCode::invalid_argument,
                fmt::format("--layer: '{}' is the name of a layer, which needs --disk",
                            to_terminal(*map.layer)));
  const Result<std::size_t> named = graph::find_layer(opened.names, *map.layer);
  if (!named)
    return fail(with_context(named.error(), "--layer"));
  return *named;
}

// The part of the guest's disk that -s and -l ask for; it may begin past the end, and is empty
// then.
Result<GuestRange> wanted_range(const MapOptions& map, std::uint64_t guest_size) {
  const std::uint64_t start =
      map.start_offset ? TRY(parse_size("start offset", *map.start_offset)) : 0;
  const std::uint64_t length =
      map.max_length ? TRY(parse_size("max length", *map.max_length)) : guest_size;
  const std::uint64_t end = std::min(guest_size, checked_add(start, length).value_or(guest_size));
  return GuestRange{{start}, {std::max(start, end)}};
}

Result<void> write_context(const graph::Chain& chain, GuestRange range, const MapOptions& map,
                           analysis::Context context, analysis::UnreadableRanges& unreadable,
                           World& world) {
  const report::Sink sink = world.sink();
  report::ContextWriter writer(context, map.common.json(), sink);
  TRY(analysis::context_extents(chain, range, context, world.workers(),
                                [&](const analysis::ContextExtent& extent) {
                                  writer.write(extent);
                                  unreadable.add(extent.unreadable);
                                }));
  return writer.end();
}

Result<void> write_extents(const graph::Chain& chain, GuestRange range, const MapOptions& map,
                           analysis::UnreadableRanges& unreadable, World& world) {
  using Form = report::MapWriter::Form;
  const Form form = map.provenance
                        ? (map.common.json() ? Form::provenance_json : Form::provenance_text)
                        : (map.common.json() ? Form::qemu_json : Form::qemu_text);
  const report::Sink sink = world.sink();
  report::MapWriter writer(form, report::map_layers(chain), report::absent_of(chain), sink);
  TRY(writer.begin(range.begin.value));
  TRY(analysis::map(chain, range, world.workers(), [&](std::span<const analysis::Extent> extents) {
    unreadable.add(extents);
    return writer.write(extents);
  }));
  return writer.end();
}

Result<ExitStatus> run_verb(const MapOptions& map, World& world) {
  std::optional<analysis::Context> context;
  if (map.context) {
    context = analysis::context_from(*map.context);
    if (!context)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("unknown context '{}'; known are base:allocation, "
                              "qemu:allocation-depth and qemu:joint-allocation",
                              to_terminal(*map.context)));
  }
  const OpenedDisk opened = TRY(open_operand(map.common, map.disks, map.image, world));
  const OpenedTree& tree = opened.tree;
  TRY(warn_of_pending(map.common, *tree.top, world));
  const bool is_refused = tell_refusals(*tree.top, world);
  const std::optional<std::size_t> layer = TRY(wanted_layer(map, opened));
  const graph::Chain chain =
      TRY(graph::Chain::make(*tree.top, {.snapshot = map.snapshot, .layer = layer}));
  const GuestRange range = TRY(wanted_range(map, chain.guest_size()));
  analysis::UnreadableRanges unreadable;
  if (context) {
    TRY(write_context(chain, range, map, *context, unreadable, world));
  } else if (map.summary) {
    const analysis::Provision provision =
        TRY(analysis::provision_of(chain, range, world.workers()));
    unreadable.add(provision.unreadable);
    const auto layers = report::map_layers(chain);
    if (map.common.json())
      TRY(report::write_summary_json(layers, provision, world.sink()));
    else
      TRY(report::write_summary_text(layers, provision, report::absent_of(chain),
                                     style_for(world, map.common.color), world.sink()));
  } else {
    TRY(write_extents(chain, range, map, unreadable, world));
  }
  complain_of_unreadable(chain, unreadable, world);
  return is_refused || unreadable.has_damaged_tables() ? failure : success;
}

}  // namespace

void register_map(CommandLine app, World& world, int& status) {
  add_looking_verb<MapOptions>(app, "map", "Show where each guest byte comes from, as qemu-img map",
                               world, status, options, run_verb);
}

}  // namespace coldchain::cli
