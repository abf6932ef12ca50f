// SPDX-License-Identifier: MIT
// QEMU block/qcow2-refcount.c, qcow2_check_refcounts(): the order of the messages of a repair.
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/report/repair_report.hpp>

namespace coldchain::report {

namespace {

using finding::Code;
using finding::Finding;

bool is_flag(const Finding& finding) {
  return finding.code == Code::l1_entry_copied_wrong || finding.code == Code::l2_entry_copied_wrong;
}

bool is_refcount(const Finding& finding) {
  return finding.code == Code::refcount_too_low || finding.code == Code::cluster_leaked ||
         finding.code == Code::refcount_unreadable;
}

// Numbers in ranges that are in order and do not overlap.
using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

bool contains(const Ranges& ranges, std::uint64_t number) {
  const auto next =
      std::upper_bound(ranges.begin(), ranges.end(), number,
                       [](std::uint64_t value, const auto& range) { return value < range.first; });
  return next != ranges.begin() && number < std::prev(next)->second;
}

// Where the entries lie whose flags are wrong.
Ranges places_of_flags(const finding::Findings& findings) {
  Ranges ranges;
  for (const Finding& finding : findings) {
    if (is_flag(finding))
      ranges.emplace_back(finding.host.begin.value, finding.host.end.value);
  }
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

class Transcript {
 public:
  Transcript(const std::string& filename, const RepairFacts& facts, bool by_runs,
             const Style& style, const Sink& sink)
      : filename_(filename),
        repair_(*facts.repair),
        tier_(facts.tier),
        by_runs_(by_runs),
        style_(style),
        sink_(sink) {}

  Result<void> write() {
    const bool rebuilds = ops::needs_rebuild(repair_.before, tier_);
    const bool is_stopped = rebuilds && tier_ == ops::RepairTier::leaks && repair_.actions.empty();
    const bool is_rebuilt = rebuilds && tier_ == ops::RepairTier::all;
    TRY(write_before(!is_stopped && !is_rebuilt));
    if (is_stopped)
      return sink_("ERROR need to rebuild refcount structures\n");
    if (is_rebuilt)
      TRY(sink_("Rebuilding refcount structure\n"));
    TRY(write_flags());
    // qemu-img checks a repaired image again.
    return repair_.corruptions_fixed + repair_.leaks_fixed != 0 ? write_after() : Result<void>{};
  }

 private:
  Result<void> write_part(const CheckedImage& image, const ChooseTelling& choose) {
    return write_check_messages(image, by_runs_, style_, sink_, choose);
  }

  // qemu-img compares the refcounts a second time to repair them.
  Result<void> write_before(bool compares_twice) {
    CheckedImage before =
        checked_image(filename_, repair_.before.counts, repair_.before.findings, {});
    TRY(write_part(before, [&](const Finding& finding, std::uint64_t) {
      const bool is_repaired_at_once =
          finding.code == Code::refcount_block_past_end && tier_ == ops::RepairTier::all;
      return is_flag(finding)      ? Telling::nothing
             : is_repaired_at_once ? Telling::repaired
                                   : Telling::error;
    }));
    before.omitted = 0;  // they are named once
    const auto second_time = [&](const Finding& finding, std::uint64_t number) {
      if (!is_refcount(finding))
        return Telling::nothing;
      return contains(repair_.after_refcounts.wrong_refcounts, finding.index + number)
                 ? Telling::error
                 : Telling::repaired;
    };
    return compares_twice ? write_part(before, second_time) : Result<void>{};
  }

  Result<void> write_after() {
    const CheckedImage after =
        checked_image(filename_, repair_.after.counts, repair_.after.findings, {});
    return write_part(after, [](const Finding& finding, std::uint64_t) {
      return is_known_to_qemu(finding) ? Telling::error : Telling::nothing;
    });
  }

  Result<void> write_flags() {
    CheckedImage flags;
    flags.findings = repair_.after_refcounts.wrong_flags;
    const Ranges left = places_of_flags(repair_.after.findings.runs());
    return write_part(flags, [&](const Finding& finding, std::uint64_t number) {
      const std::uint64_t step = finding.host.size() / finding.count;
      return contains(left, finding.host.begin.value + number * step) ? Telling::error
                                                                      : Telling::repaired;
    });
  }

  const std::string& filename_;
  const ops::Repair& repair_;
  ops::RepairTier tier_;
  bool by_runs_;
  const Style& style_;
  const Sink& sink_;
};

}  // namespace

Result<void> write_repair_messages(const std::string& filename, const RepairFacts& facts,
                                   bool by_runs, const Style& style, const Sink& sink) {
  return Transcript(filename, facts, by_runs, style, sink).write();
}

}  // namespace coldchain::report
