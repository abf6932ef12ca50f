// SPDX-License-Identifier: MIT
// The order of the steps: refcount blocks that cannot be right, the mapping, then the tables that
// need room, then the refcounts by what the mapping names, then the copied flags by the refcounts,
// then the marks in the header.
#include "mender.hpp"

#include <algorithm>
#include <bit>
#include <map>

#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using finding::Code;
using finding::Finding;
using finding::Findings;
using finding::Severity;
using finding::Structure;

// A step may uncover what the next round mends; each mends all that it sees.
constexpr int most_rounds = 32;

// The findings of a hostile image are many: they are moved.
Condition condition_of(check::CheckResult& result) {
  return {result.counts, std::move(result.findings), std::move(result.failure)};
}

bool concerns_mapping(const Finding& finding) {
  // Two references to one cluster: one of them may be wrong, and what it named is unreferenced.
  if (finding.code == Code::cluster_used_twice || finding.code == Code::refcount_overflow ||
      (finding.code == Code::refcount_too_low && finding.expected > 1))
    return true;
  // Without its pointer, nobody knows the clusters that the encryption header lies in.
  if (finding.code == Code::encryption_header_bad)
    return true;
  const auto family = static_cast<unsigned>(finding.code) / 100;
  const bool is_mapping = family == 32 || family == 33 || family == 34;
  const bool is_of_others = finding.structure == Structure::refcount_table ||
                            finding.structure == Structure::bitmap_directory ||
                            finding.structure == Structure::bitmap_table ||
                            finding.structure == Structure::bitmap_data;
  return is_mapping && !is_of_others &&
         finding::row(finding.code).severity >= Severity::corruption &&
         finding.code != Code::l1_entry_copied_wrong && finding.code != Code::l2_entry_copied_wrong;
}

// The same of a finding that was not kept, of which only the code is known.
bool may_concern_mapping(const check::CheckResult& checked) {
  return std::any_of(
      finding::catalogue().begin(), finding::catalogue().end(), [&](const finding::Row& row) {
        return checked.findings.has(row.code) &&
               (row.code == Code::refcount_too_low || concerns_mapping({.code = row.code}));
      });
}

// Whether clusters to which nothing refers may be what a damaged reference named. What was
// appended, from `fresh_from` on, is not counted yet.
bool is_mapping_damaged(const check::CheckResult& checked, const qcow2::Header& header,
                        HostOffset fresh_from) {
  const Findings& findings = checked.findings.runs();
  if (checked.failure || std::any_of(findings.begin(), findings.end(), concerns_mapping) ||
      (checked.findings.omitted() != 0 && may_concern_mapping(checked)))
    return true;
  // A table that names nothing, or a part of one, may have been lost, whatever is known of leaks.
  const bool has_hidden_encryption =
      header.crypt_method != static_cast<std::uint32_t>(qcow2::CryptMethod::luks) &&
      header.find_extension(qcow2::extension::encryption_header) != nullptr;
  if (has_hidden_encryption || checked.findings.has(Code::l2_table_empty) ||
      checked.findings.has(Code::l2_table_part_empty))
    return true;
  // Together with leaks, a reference that goes where nobody counted may be a wrong one. After lazy
  // refcounts, counts alone are wrong.
  return checked.counts.leaks != 0 && !header.has_incompatible(qcow2::incompatible::dirty) &&
         std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
           return finding.code == Code::refcount_too_low && finding.host.begin < fresh_from;
         });
}

bool is_flag(Code code) {
  return code == Code::l1_entry_copied_wrong || code == Code::l2_entry_copied_wrong;
}

// A table that several entries name is checked several times, but its flags are repaired once.
struct Flags {
  std::uint64_t count = 0;
  std::uint64_t distinct = 0;
  Findings runs;
};

Flags flags_of(const check::CheckResult& result) {
  const Findings& findings = result.findings.runs();
  Flags flags;
  std::vector<std::pair<HostOffset, std::size_t>> places;  // with the first finding there
  for (std::size_t i = 0; i < findings.size(); ++i) {
    if (!is_flag(findings[i].code))
      continue;
    flags.count += findings[i].count;
    places.emplace_back(findings[i].host.begin, i);
  }
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end(),
                           [](const auto& a, const auto& b) { return a.first == b.first; }),
               places.end());
  std::sort(places.begin(), places.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  for (const auto& [place, i] : places) {
    flags.distinct += findings[i].count;
    if (flags.runs.size() < AfterRefcounts::most_flags)
      flags.runs.push_back(findings[i]);
  }
  return flags;
}

AfterRefcounts after_refcounts(const check::CheckResult& result) {
  Flags flags = flags_of(result);
  AfterRefcounts after;
  after.corruptions = result.counts.corruptions - flags.count;
  after.flags = flags.distinct;
  after.wrong_flags = std::move(flags.runs);
  for (const Finding& finding : result.findings.runs()) {
    if (finding.code == Code::refcount_too_low || finding.code == Code::cluster_leaked)
      after.wrong_refcounts.emplace_back(finding.index, finding.index + finding.count);
  }
  std::sort(after.wrong_refcounts.begin(), after.wrong_refcounts.end());
  return after;
}

std::uint64_t decrease(std::uint64_t before, std::uint64_t after) {
  return before > after ? before - after : 0;
}

// QEMU block/qcow2-refcount.c, qcow2_check_refcounts(): a flag that only a wrong refcount made
// wrong is not counted; one that a repaired refcount makes wrong is.
std::uint64_t corruptions_fixed(const check::CheckResult& before, const AfterRefcounts& between,
                                const check::CheckResult& after) {
  if (before.findings.omitted() != 0 || after.findings.omitted() != 0)
    return decrease(before.counts.corruptions, after.counts.corruptions);
  return decrease(decrease(before.counts.corruptions, flags_of(before).count),
                  between.corruptions) +
         decrease(between.flags, flags_of(after).distinct);
}

std::map<Code, std::uint64_t> corruptions_by_code(const check::CheckResult& result) {
  std::map<Code, std::uint64_t> counts;
  for (const Finding& finding : result.findings.runs()) {
    if (finding::row(finding.code).severity >= Severity::corruption)
      counts[finding.code] += finding.count;
  }
  return counts;
}

// What makes the repaired image worse than it was, in words: a kind of damage that was not there,
// or more of what qemu-img counts.
std::optional<std::string> what_is_worse(const check::CheckResult& before,
                                         const check::CheckResult& after) {
  if (after.failure && !before.failure)
    return after.failure;
  const auto then = corruptions_by_code(before);
  for (const auto& [code, count] : corruptions_by_code(after)) {
    // A flag that agreed with a wrong refcount may not be one that can be written.
    if (!then.contains(code) && before.findings.omitted() == 0 && !is_flag(code))
      return fmt::format("{} (of {})", finding::row(code).slug, count);
  }
  if (after.counts.corruptions > before.counts.corruptions ||
      after.counts.check_errors > before.counts.check_errors)
    return fmt::format("{} errors instead of {}",
                       after.counts.corruptions + after.counts.check_errors,
                       before.counts.corruptions + before.counts.check_errors);
  return std::nullopt;
}

// What no repair may do, cluster by cluster, whatever it thinks that it does: lower a refcount
// below what refers to the cluster, or free one with data in it without a word.
Result<std::optional<std::string>> what_is_harmed(const Mender& mender) {
  if (!mender.at_first)
    return std::nullopt;
  const check::CheckResult& before = *mender.at_first;
  const check::CheckResult& after = *mender.checked;
  check::Claims was_too_low(1);
  for (const Finding& finding : before.findings.runs()) {
    if (finding.code == Code::refcount_too_low)
      was_too_low.add(finding.index, finding.count);
  }
  for (const Finding& finding : after.findings.runs()) {
    for (std::uint64_t i = 0; finding.code == Code::refcount_too_low && i < finding.count; ++i) {
      const std::uint64_t cluster = finding.index + i;
      if (before.findings.omitted() == 0 && before.claims.at(cluster) != 0 &&
          was_too_low.at(cluster) == 0)
        return fmt::format("a refcount of cluster {} that is too low", cluster);
    }
  }
  HostOffset data = TRY(mender.view().next_data({0}));
  for (std::uint64_t word = before.stored.next_counted(0); word < before.stored.end();
       word = before.stored.next_counted(word + 64)) {
    const check::StoredRefcounts::Word was = before.stored.word(word);
    const check::StoredRefcounts::Word is = after.stored.word(word);
    for (std::uint64_t bits =
             (was.one | was.more) & ~(is.one | is.more) & ~mender.freed.word(word).claimed;
         bits != 0; bits &= bits - 1) {
      const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
      const HostRange range = mender.clusters(cluster);
      if (data < range.begin)
        data = TRY(mender.view().next_data(range.begin));
      if (range.begin <= data && data < range.end && data.value < mender.view().size())
        return fmt::format("cluster {} free, which may be lost data", cluster);
    }
  }
  return std::nullopt;
}

// Whether each table lies where it was told to be linked.
Result<void> check_links(const Mender& mender) {
  for (const TableLink& link : mender.options.links) {
    const HostOffset at{mender.header().l1_table_offset + link.l1_index * sizeof(be64)};
    if (link.l1_index >= mender.header().l1_size ||
        (TRY(mender.entry_at(at)) & qcow2::offset_mask) != link.table.value)
      return fail(ErrorCode::refused,
                  fmt::format("--link {:#x}={}: there is no lost table at that offset, or the L1 "
                              "entry has one; '--rebuild-mapping --dry-run' lists what can be "
                              "linked",
                              link.table.value, link.l1_index));
  }
  return {};
}

using Step = Result<bool> (*)(Mender&);

// Takes a step and, where it changed something, looks again.
Result<bool> take(Mender& mender, Step step) {
  const bool has_changed = TRY(step(mender));
  if (has_changed)
    TRY(mender.check_again());
  return has_changed;
}

Result<void> mend(Mender& mender) {
  TRY(mender.check_again());
  mender.is_mapping_damaged =
      mender.options.keep_unreferenced ||
      is_mapping_damaged(*mender.checked, mender.header(), mender.fresh_from());
  if (mender.options.tier == RepairTier::all) {
    // L1 entries that name something else than a table go first: with them, what they name seems to
    // be wrong. Then refcount blocks that cannot be right: what they seem to occupy is not theirs.
    // Then entries: what is appended must not come to lie where one of them points.
    std::vector<Step> steps = {mend_entries, mend_header_tables};
    if (!mender.leaves_tables) {
      steps.insert(steps.begin(), drop_bad_blocks);
      steps.push_back(mend_refcount_tables);
    }
    steps.insert(steps.begin(), drop_wrong_tables);
    steps.push_back(find_lost_tables);
    bool has_changed = true;
    for (int round = 0; has_changed && round < most_rounds; ++round) {
      has_changed = false;
      mender.obstacle.reset();  // of the last round, it stands
      for (const Step step : steps)
        has_changed = TRY(take(mender, step)) || has_changed;
    }
  }
  // What had no refcounts until now may leak, too.
  mender.is_mapping_damaged =
      mender.is_mapping_damaged ||
      is_mapping_damaged(*mender.checked, mender.header(), mender.fresh_from());
  TRY(take(mender, mend_refcounts));
  mender.after_refcounts = after_refcounts(*mender.checked);
  for (int round = 0; TRY(take(mender, mend_copied_flags)) && round < most_rounds; ++round) {
  }
  TRY(take(mender, mend_header_bits));
  return {};
}

// Data that the file has no bytes of reads as zeros once the file has grown over it.
void note_grown_over(Mender& mender) {
  if (!mender.at_first || mender.checked->findings.has(Code::data_past_end))
    return;
  for (const Finding& finding : mender.at_first->findings.runs()) {
    // Of compressed clusters, the entries were changed.
    if (finding.code == Code::data_past_end && !qcow2::L2Entry(finding.entry).is_compressed())
      mender.add({.mending = Mending::read_as_zeros,
                  .structure = finding.structure,
                  .index = finding.index,
                  .host = finding.host,
                  .lost = finding.guest});
  }
}

Result<Repair> result_of(Mender& mender) {
  TRY(check_links(mender));
  note_grown_over(mender);
  std::optional<std::string> worse =
      what_is_worse(mender.at_first ? *mender.at_first : *mender.checked, *mender.checked);
  if (!worse)
    worse = TRY(what_is_harmed(mender));
  if (worse)
    return fail(ErrorCode::refused,
                fmt::format("the repair would add new damage: {}{}. Nothing is changed; run "
                            "'coldchain check --list' to see the findings",
                            *worse, mender.obstacle ? "; " + *mender.obstacle : ""));
  const check::CheckResult& first = mender.at_first ? *mender.at_first : *mender.checked;
  Repair repair;
  repair.corruptions_fixed = corruptions_fixed(first, mender.after_refcounts, *mender.checked);
  repair.leaks_fixed = decrease(first.counts.leaks, mender.checked->counts.leaks);
  repair.after = condition_of(*mender.checked);
  repair.before = mender.at_first ? condition_of(*mender.at_first) : repair.after;
  repair.after_refcounts = std::move(mender.after_refcounts);
  repair.actions = std::move(mender.actions);
  repair.omitted_actions = mender.omitted_actions;
  repair.kept_clusters = mender.kept_clusters;
  repair.proposals = std::move(mender.proposals);
  repair.obstacle = std::move(mender.obstacle);
  // qemu-img frees no leaks where it would have to rebuild the refcounts, and gives no verdict.
  if (mender.options.tier == RepairTier::leaks && repair.actions.empty() &&
      needs_rebuild(repair.before, RepairTier::leaks) && !repair.after.failure)
    repair.after.failure = "Input/output error";
  return repair;
}

}  // namespace

std::string_view to_string(Mending mending) {
  switch (mending) {
    case Mending::raise_refcount:
      return "raise refcount";
    case Mending::lower_refcount:
      return "lower refcount";
    case Mending::free_cluster:
      return "free cluster";
    case Mending::new_refcount_table:
      return "new refcount table";
    case Mending::new_refcount_block:
      return "new refcount block";
    case Mending::drop_refcount_block:
      return "drop refcount block";
    case Mending::set_copied_flag:
      return "set copied flag";
    case Mending::clear_copied_flag:
      return "clear copied flag";
    case Mending::clear_reserved_bits:
      return "clear reserved bits";
    case Mending::clear_subcluster_bits:
      return "clear subcluster bits";
    case Mending::read_as_zeros:
      return "read as zeros";
    case Mending::drop_l2_table:
      return "drop L2 table";
    case Mending::link_l2_table:
      return "link L2 table";
    case Mending::write_snapshot_table:
      return "write snapshot table";
    case Mending::mark_bitmap_dirty:
      return "mark bitmap dirty";
    case Mending::give_up_bitmaps:
      return "give up bitmaps";
    case Mending::remove_extension:
      return "remove header extension";
    case Mending::clear_header_field:
      return "clear header field";
    case Mending::clear_feature_bit:
      return "clear feature bit";
  }
  return "";
}

bool needs_rebuild(const Condition& condition, RepairTier tier) {
  const Findings& findings = condition.findings.runs();
  return std::any_of(findings.begin(), findings.end(), [tier](const Finding& finding) {
    switch (finding.code) {
      case Code::refcount_table_entry_reserved:
      case Code::refcount_block_unaligned:
      case Code::refcount_block_shared:
        return true;
      case Code::refcount_too_low:
        return finding.found == 0;
      case Code::refcount_block_past_end:  // it would grow the file up to there
        return tier == RepairTier::all;
      default:
        return false;
    }
  });
}

Result<Condition> condition_of(const io::File& file) {
  const qcow2::Image image = TRY(qcow2::Image::open_damaged(file));
  check::CheckResult result = TRY(check::check(image, {}));
  return condition_of(result);
}

std::uint64_t corruption_count(const Condition& condition) {
  return condition.counts.corruptions + condition.counts.check_errors + (condition.failure ? 1 : 0);
}

Result<Repair> plan_repair(edit::Transaction& transaction, const io::File* data_file,
                           const RepairOptions& options) {
  Mender mender(transaction, data_file, options);
  TRY(mend(mender));
  const bool must_leave =
      mender.has_left_tables && (mender.table_is_bad() || !mender.dropped_blocks.empty());
  if (!must_leave)
    return result_of(mender);
  // What nothing can take the place of stays in effect, and counts for what it says.
  transaction.discard();
  Mender cautious(transaction, data_file, options);
  cautious.leaves_tables = true;
  TRY(mend(cautious));
  cautious.obstacle = std::move(mender.obstacle);
  return result_of(cautious);
}

}  // namespace coldchain::ops
