// SPDX-License-Identifier: MIT
#include "cost_report.hpp"

#include <algorithm>
#include <vector>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/repair_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using finding::Code;
using ops::Action;
using ops::Mending;

std::string action_line(const Action& action) {
  std::string line = fmt::format("{}: {} {}", to_string(action.mending),
                                 to_string(action.structure), action.index);
  if (action.count > 1)
    line += fmt::format(" and {} more", action.count - 1);
  if (!action.host.empty())
    line += fmt::format(", host {:#x}-{:#x}", action.host.begin.value, action.host.end.value);
  if (!action.lost.empty())
    line +=
        fmt::format(", guest {:#x}-{:#x} is lost", action.lost.begin.value, action.lost.end.value);
  if (!action.detail.empty())
    line += ": " + to_terminal(action.detail);
  return line + "\n";
}

// What the actions of a plan do not say by themselves.
std::string consequences(const ops::Repair& repair) {
  constexpr std::size_t most_ranges = 1000;
  std::string out;
  std::size_t ranges = 0;
  for (const Action& action : repair.actions) {
    if (action.lost.empty() || ++ranges > most_ranges)
      continue;
    out +=
        fmt::format("lost for good: guest {:#x}-{:#x} ({}, {} {}){}\n", action.lost.begin.value,
                    action.lost.end.value, to_string(action.mending), to_string(action.structure),
                    action.index, action.detail.empty() ? "" : ": " + to_terminal(action.detail));
  }
  if (ranges > most_ranges)
    out += fmt::format("lost for good: {} more ranges; '--dry-run' lists them all\n",
                       ranges - most_ranges);
  if (repair.kept_clusters != 0)
    out +=
        fmt::format("{} clusters keep their refcount: {}\n", repair.kept_clusters,
                    repair.after.failure
                        ? "not every reference could be counted"
                        : "they may hold lost data. 'coldchain repair --rebuild-mapping --dry-run' "
                          "looks for the tables that describe them; '--free-orphans' frees them");
  if (repair.obstacle)
    out += fmt::format("refcounts or snapshots are not rebuilt: {}\n", *repair.obstacle);
  for (const std::string& proposal : repair.proposals)
    out += fmt::format("a lost table is not linked: {}\n", proposal);
  return out;
}

// What a check finds afterwards, and who or what can settle it.
std::string left_text(const ops::Repair& repair) {
  constexpr std::size_t most_left = 100;
  std::string out;
  std::size_t lines = 0;
  for (const finding::Finding& finding : repair.after.findings.runs()) {
    const finding::Row& row = finding::row(finding.code);
    if (row.severity < finding::Severity::corruption || ++lines > most_left)
      continue;
    out += fmt::format("not repaired: {}: {}. {}\n", row.slug, to_terminal(place_of(finding)),
                       row.advice);
  }
  if (lines > most_left)
    out += fmt::format("not repaired: {} more; 'coldchain check --list' lists them\n",
                       lines - most_left);
  return out;
}

// The reason why a plan is empty.
std::string nothing_text(const RepairFacts& facts) {
  std::uint64_t for_all = 0;
  std::uint64_t for_a_person = 0;
  for (const finding::Finding& finding : facts.repair->after.findings.runs()) {
    const finding::Row& row = finding::row(finding.code);
    if (row.severity < finding::Severity::corruption)
      continue;
    const bool needs_all =
        facts.tier == ops::RepairTier::leaks && row.repaired_by == finding::Tier::all;
    (needs_all ? for_all : for_a_person) += finding.count;
  }
  std::vector<std::string> reasons;
  if (for_all != 0)
    reasons.push_back(fmt::format("{} findings need 'coldchain check -r all'", for_all));
  if (for_a_person != 0)
    reasons.push_back(
        fmt::format("{} findings need a person; each is listed with what to do", for_a_person));
  if (facts.repair->kept_clusters != 0)
    reasons.push_back("unreferenced clusters are kept");
  if (reasons.empty())
    reasons.push_back("the check found nothing that a repair settles");
  return fmt::format("Nothing would be changed: {}.\n", fmt::join(reasons, "; "));
}

// Host clusters with two users whose refcounts were too low, too.
std::uint64_t double_uses_left(const ops::Repair& repair) {
  std::uint64_t count = 0;
  for (const finding::Finding& finding : repair.after.findings.runs())
    count += finding.code == Code::cluster_used_twice ? finding.count : 0;
  return repair.before.findings.has(Code::refcount_too_low) ? count : 0;
}

}  // namespace

CheckedImage repaired_image(const std::string& filename, const ops::Repair& repair) {
  CheckedImage image =
      checked_image(filename, repair.after.counts, repair.after.findings, repair.after.failure);
  image.corruptions_fixed = repair.corruptions_fixed;
  image.leaks_fixed = repair.leaks_fixed;
  image.kept_clusters = repair.kept_clusters;
  image.double_uses = double_uses_left(repair);
  if (image.double_uses != 0)
    image.verdict = std::max(image.verdict, Verdict::corrupt);
  return image;
}

std::string repair_text(const CheckedImage& after) {
  if (after.corruptions_fixed == 0 && after.leaks_fixed == 0)
    return "";
  return fmt::format(
      "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} "
      "corruptions\n\nDouble checking the fixed image now...\n",
      after.leaks_fixed, after.corruptions_fixed);
}

Result<void> write_repair_plan(const RepairFacts& facts, const Sink& sink) {
  const ops::Repair& repair = *facts.repair;
  if (repair.actions.empty())
    return sink(nothing_text(facts) + left_text(repair) + consequences(repair));
  std::string out;
  for (const Action& action : repair.actions) {
    out += action_line(action);
    if (out.size() >= flush_at)
      TRY(sink(std::exchange(out, {})));
  }
  if (repair.omitted_actions != 0)
    out += fmt::format("{} more changes are counted, but not listed\n", repair.omitted_actions);
  out += left_text(repair) + consequences(repair);
  out += fmt::format("\n{} bytes would be changed", facts.changed_bytes);
  if (facts.size_after != facts.size_before)
    out += fmt::format(", and the file would grow from {} to {} bytes", facts.size_before,
                       facts.size_after);
  out += ". Nothing has been written; afterwards a check would say:\n";
  return sink(out);
}

std::string repair_warnings(const ops::Repair& repair) {
  std::string out;
  for (const Action& action : repair.actions) {
    const bool is_notable =
        action.mending == Mending::link_l2_table || action.mending == Mending::give_up_bitmaps ||
        action.mending == Mending::mark_bitmap_dirty ||
        (action.mending == Mending::write_snapshot_table && !action.detail.empty());
    if (is_notable)
      out += action_line(action);
  }
  return out + left_text(repair) + consequences(repair);
}

void write_repair_member(JsonWriter& json, const RepairFacts& facts) {
  const ops::Repair& repair = *facts.repair;
  write_planned(json, facts.planned);
  json.key("repair")
      .begin_object()
      .member("tier", facts.tier == ops::RepairTier::all ? "all" : "leaks")
      .member("dry-run", facts.is_dry_run)
      .member("changed-bytes", facts.changed_bytes)
      .member("size-before", facts.size_before)
      .member("size-after", facts.size_after)
      .member("kept-clusters", repair.kept_clusters)
      .member("omitted-actions", repair.omitted_actions);
  if (!facts.undo_file.empty())
    json.name_member("undo-file", facts.undo_file);
  json.key("proposals").begin_array();
  for (const std::string& proposal : repair.proposals)
    json.value(proposal);
  json.end_array().key("actions").begin_array();
  for (const Action& action : repair.actions) {
    json.begin_object()
        .member("action", to_string(action.mending))
        .member("structure", to_string(action.structure))
        .member("index", action.index)
        .member("count", action.count);
    write_range(json, "host", action.host);
    write_range(json, "lost", action.lost);
    json.member("detail", action.detail).end_object();
  }
  json.end_array().end_object();
}

}  // namespace coldchain::report
