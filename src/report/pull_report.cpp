// SPDX-License-Identifier: MIT
#include "cost_report.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/codec/digest.hpp>
#include <coldchain/report/pull_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

bool makes_places(const PullFacts& facts) {
  return facts.allocation && facts.allocation->places != ops::Places::thin;
}

}  // namespace

std::string pull_warnings(const PullFacts& facts) {
  std::string out = unreadable_warnings(facts.pull->cost);
  for (const std::string& snapshot : facts.pull->snapshots)
    out += fmt::format("internal snapshot {} reads different data afterwards\n",
                       to_terminal(snapshot));
  for (const std::string& bitmap : facts.pull->bitmaps)
    out += fmt::format("bitmap {} stays in its layer: the image does not get what it recorded\n",
                       to_terminal(bitmap));
  return out + dirty_bitmap_warnings(facts.pull->bitmaps_dirty, to_terminal(facts.image));
}

std::string pull_text(const PullFacts& facts) {
  const ops::Cost& cost = facts.pull->cost;
  std::string out = plan_line("image", to_terminal(facts.image));
  out += plan_line("backing", facts.backing_file ? to_terminal(*facts.backing_file) : "none");
  out += cost_lines(cost);
  if (facts.pull->compressed_bytes != 0)
    out += plan_line("compressed",
                     fmt::format("{} bytes are copied as they are", facts.pull->compressed_bytes));
  if (facts.pull->recompressed_bytes != 0)
    out +=
        plan_line("compressed", fmt::format("anew, to {} bytes", facts.pull->recompressed_bytes));
  if (makes_places(facts))
    out += plan_line("storage",
                     fmt::format("{} bytes are allocated for the file", facts.pull->storage_bytes));
  if (facts.pull->limit)
    out += plan_line("too large", fmt::format("for one change, which may have {} bytes of tables: "
                                              "use 'coldchain allocate --range OFFSET:LENGTH'",
                                              *facts.pull->limit));
  for (const std::string& snapshot : facts.pull->filled_snapshots)
    out += plan_line("filled", fmt::format("internal snapshot {}, too", to_terminal(snapshot)));
  for (const std::string& bitmap : facts.pull->bitmaps_marked)
    out += plan_line("bitmap", to_terminal(bitmap) + " gets what the removed layers recorded");
  for (const ops::DirtyBitmap& bitmap : facts.pull->bitmaps_dirty)
    out += plan_line("bitmap", to_terminal(bitmap.name) + " marks the whole disk");
  for (const ops::LayerStorage& layer : facts.pull->not_needed)
    out += plan_line("not needed", fmt::format("{}, by this image: {} bytes of storage",
                                               to_terminal(layer.filename), layer.allocated));
  if (facts.is_plan)
    return out + "Nothing has been written.\n";
  return out + (cost.metadata_bytes == 0 && facts.pull->storage_bytes == 0
                    ? "Nothing had to be done.\n"
                    : "");
}

std::string pull_json(const PullFacts& facts) {
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.pull").member("version", 2);
  json.member("is-plan", facts.is_plan);
  write_planned(json, facts.planned);
  json.name_member("filename", facts.image);
  if (facts.backing_file)
    json.name_member("backing-filename", *facts.backing_file);
  write_cost(json, facts.pull->cost);
  json.member("compressed-bytes", facts.pull->compressed_bytes)
      .member("recompressed-bytes", facts.pull->recompressed_bytes);
  if (facts.allocation)
    json.member("places", ops::to_string(facts.allocation->places));
  if (makes_places(facts))
    json.member("storage-bytes", facts.pull->storage_bytes);
  if (facts.pull->limit)
    json.member("metadata-limit", *facts.pull->limit);
  else
    json.member("digest", codec::to_hex(facts.pull->change.digest.sha256));
  write_not_needed(json, facts.pull->not_needed);
  write_names(json, "snapshots-changed", facts.pull->snapshots);
  write_names(json, "snapshots-filled", facts.pull->filled_snapshots);
  write_names(json, "bitmaps-marked", facts.pull->bitmaps_marked);
  write_dirty_bitmaps(json, facts.pull->bitmaps_dirty);
  write_names(json, "bitmaps-left", facts.pull->bitmaps);
  json.end_object();
  return json.take() + "\n";
}

}  // namespace coldchain::report
