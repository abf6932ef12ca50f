// SPDX-License-Identifier: MIT
#include "cost_report.hpp"

#include <algorithm>
#include <numeric>

#include <coldchain/base/text.hpp>
#include <coldchain/codec/digest.hpp>
#include <coldchain/report/commit_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

template <class Range>
std::uint64_t total_size(const std::vector<Range>& ranges) {
  return std::accumulate(ranges.begin(), ranges.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Range& range) { return sum + range.size(); });
}

}  // namespace

std::string commit_warnings(const CommitFacts& facts) {
  std::string out = unreadable_warnings(facts.commit->cost);
  for (const std::string& snapshot : facts.commit->snapshots)
    out += fmt::format("internal snapshot {} reads different data afterwards\n",
                       to_terminal(snapshot));
  for (const std::string& path : facts.dependents)
    out += fmt::format("{} reads through the base and reads different data afterwards\n",
                       to_terminal(path));
  for (const std::string& bitmap : facts.commit->bitmaps_left)
    out += fmt::format("bitmap {} stays in its layer: the base does not get it\n",
                       to_terminal(bitmap));
  for (const Reparented& overlay : facts.reparented)
    out += dirty_bitmap_warnings(overlay.bitmaps_dirty, to_terminal(overlay.filename));
  return out;
}

std::string commit_text(const CommitFacts& facts) {
  const ops::Commit& commit = *facts.commit;
  std::string out = plan_line("image", to_terminal(facts.image));
  out += plan_line("base", to_terminal(facts.base));
  out += cost_lines(commit.cost);
  out += plan_line("in place", fmt::format("{} of the written bytes", commit.overwritten_bytes));
  if (!commit.freed.empty())
    out += plan_line("discarded", fmt::format("{} bytes of the base's file, which become a hole",
                                              total_size(commit.freed)));
  if (commit.disk_size_after != commit.disk_size_before)
    out += plan_line("disk", fmt::format("of the base: {} -> {} bytes", commit.disk_size_before,
                                         commit.disk_size_after));
  if (facts.emptying != nullptr)
    out += plan_line(
        "emptied", fmt::format("{}: image end {} -> {}", to_terminal(facts.image),
                               facts.emptying->image_end_before, facts.emptying->image_end_after));
  for (const std::string& bitmap : commit.bitmaps_marked)
    out += plan_line("bitmap", to_terminal(bitmap) + " of the base records what is written");
  for (const std::string& bitmap : commit.bitmaps_merged)
    out += plan_line("bitmap", to_terminal(bitmap) + " of the base gets what the layers recorded");
  for (const std::string& layer : commit.stale_layers)
    out += plan_line("stale", to_terminal(layer) + " shows different data afterwards");
  for (const ops::LayerStorage& layer : commit.not_needed)
    out += plan_line("not needed", fmt::format("{}, beside the base: {} bytes of storage",
                                               to_terminal(layer.filename), layer.allocated));
  for (const Reparented& overlay : facts.reparented)
    out +=
        plan_line("reparented", fmt::format("{}: its backing file becomes {}; {} bytes of metadata",
                                            to_terminal(overlay.filename), to_terminal(facts.base),
                                            overlay.metadata_bytes));
  for (const std::string& path : facts.dependents)
    out += plan_line("depends", to_terminal(path) + " reads through the base");
  if (facts.is_plan)
    for (const std::string& folder : facts.searched)
      out +=
          plan_line("searched", fmt::format("'{}' for images that depend on the base; --scan DIR "
                                            "searches another folder, too",
                                            to_terminal(folder)));
  return facts.is_plan ? out + "Nothing has been written.\n" : out;
}

std::string given_up_text(const ToldImage& image, const ToldImage& base, bool image_may_leak,
                          bool base_may_leak) {
  std::string out =
      image_may_leak
          ? fmt::format(
                "The commit is rolled back; {} reads as before, and may have leaked clusters: run "
                "'coldchain check {}'.\n",
                to_terminal(image.name), image.operand)
          : fmt::format("The commit is rolled back; {} is as it was before.\n",
                        to_terminal(image.name));
  if (base_may_leak)
    out += fmt::format("{} may have leaked clusters: run 'coldchain check {}'.\n",
                       to_terminal(base.name), base.operand);
  return out;
}

std::string nearly_done_text(const ToldImage& image, const ToldImage& base) {
  return fmt::format(
      "The commit was nearly done and is abandoned: {0} has all the committed data, and {1} or an "
      "overlay of it may read it there. Do not change {0} as long as {1} is needed. Clusters may "
      "leak: run 'coldchain check --backing-chain {2}'.\n",
      to_terminal(base.name), to_terminal(image.name), image.operand);
}

std::string longer_text(const std::string& base, std::uint64_t size_before) {
  return fmt::format("{} stays longer than the {} bytes that it had.\n", to_terminal(base),
                     size_before);
}

std::string maybe_changed_text(const std::string& image, const std::string& base) {
  return fmt::format("All guest data that {} holds itself may have changed in {}.\n",
                     to_terminal(image), to_terminal(base));
}

std::string changed_text(const CommitFacts& facts) {
  constexpr std::size_t most = 16;
  const std::vector<GuestRange>& changed = facts.commit->changed;
  std::string out = fmt::format(
      "In {}, up to {} bytes may have changed, in {} guest ranges that {} holds itself:\n",
      to_terminal(facts.base), total_size(changed), changed.size(), to_terminal(facts.image));
  for (std::size_t i = 0; i < std::min(most, changed.size()); ++i)
    out += fmt::format("  {:#x}-{:#x}\n", changed[i].begin.value, changed[i].end.value);
  if (changed.size() > most)
    out += fmt::format("  and {} more\n", changed.size() - most);
  for (const std::string& bitmap : facts.commit->bitmaps_marked)
    out += fmt::format("Its bitmap {} may not record these changes.\n", to_terminal(bitmap));
  return out;
}

std::string commit_json(const CommitFacts& facts) {
  const ops::Commit& commit = *facts.commit;
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.commit").member("version", 1);
  json.member("is-plan", facts.is_plan);
  write_planned(json, facts.planned);
  json.name_member("filename", facts.image).name_member("base-filename", facts.base);
  write_cost(json, commit.cost);
  json.member("digest", codec::to_hex(commit.change.digest.sha256));
  write_names(json, "searched", facts.searched);
  json.member("overwritten-bytes", commit.overwritten_bytes)
      .member("discarded-bytes", total_size(commit.freed))
      .member("disk-size-before", commit.disk_size_before)
      .member("disk-size-after", commit.disk_size_after);
  if (facts.emptying != nullptr)
    json.key("emptied")
        .begin_object()
        .member("metadata-bytes", facts.emptying->metadata_bytes)
        .member("image-end-before", facts.emptying->image_end_before)
        .member("image-end-after", facts.emptying->image_end_after)
        .member("digest", codec::to_hex(facts.emptying->change.digest.sha256))
        .end_object();
  write_not_needed(json, commit.not_needed);
  write_names(json, "stale", commit.stale_layers);
  write_names(json, "dependents", facts.dependents);
  json.key("reparented").begin_array();
  for (const Reparented& overlay : facts.reparented) {
    json.begin_object()
        .name_member("filename", overlay.filename)
        .member("metadata-bytes", overlay.metadata_bytes);
    write_dirty_bitmaps(json, overlay.bitmaps_dirty);
    json.end_object();
  }
  json.end_array();
  write_names(json, "snapshots-changed", commit.snapshots);
  write_names(json, "bitmaps-marked", commit.bitmaps_marked);
  write_names(json, "bitmaps-merged", commit.bitmaps_merged);
  write_names(json, "bitmaps-left", commit.bitmaps_left);
  json.end_object();
  return json.take() + "\n";
}

}  // namespace coldchain::report
