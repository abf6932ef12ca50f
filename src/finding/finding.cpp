// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/finding/finding.hpp>

namespace coldchain::finding {

namespace {

// Whether `next` lies right behind `run`, or neither has such a range.
template <class Range>
bool follows(const Range& run, const Range& next) {
  return run.empty() ? next.empty() : !next.empty() && run.end == next.begin;
}

// The second of a run decides how far its entries are apart.
bool steps_on(const Finding& run, const Finding& next) {
  if (next.count > 1)
    return run.entry == 0 && next.entry == 0;
  return run.count == 1 || next.entry == run.entry + run.count * run.entry_step;
}

bool continues(const Finding& run, const Finding& next) {
  return run.code == next.code && run.structure == next.structure && run.detail.empty() &&
         next.detail.empty() && next.index == run.index + run.count &&
         run.expected == next.expected && run.found == next.found && follows(run.host, next.host) &&
         follows(run.guest, next.guest) && steps_on(run, next);
}

}  // namespace

std::string_view to_string(Structure structure) {
  switch (structure) {
    case Structure::none:
      return "image";
    case Structure::header:
      return "header";
    case Structure::header_extension:
      return "header extension";
    case Structure::l1_table:
      return "L1 table";
    case Structure::l2_table:
      return "L2 table";
    case Structure::refcount_table:
      return "refcount table";
    case Structure::refcount_block:
      return "refcount block";
    case Structure::host_cluster:
      return "host cluster";
    case Structure::snapshot_table:
      return "snapshot table";
    case Structure::snapshot_l1_table:
      return "snapshot L1 table";
    case Structure::snapshot_l2_table:
      return "snapshot L2 table";
    case Structure::bitmap_directory:
      return "bitmap directory";
    case Structure::bitmap_table:
      return "bitmap table";
    case Structure::bitmap_data:
      return "bitmap data";
    case Structure::encryption_header:
      return "encryption header";
    case Structure::data_cluster:
      return "data";
    case Structure::compressed_cluster:
      return "compressed data";
    case Structure::data_file:
      return "data file";
  }
  return "";
}

Severity worst(const Findings& findings) {
  Severity result = Severity::note;
  for (const Finding& finding : findings)
    result = std::max(result, row(finding.code).severity);
  return result;
}

void FindingList::add(Finding finding) {
  if (!runs_.empty() && continues(runs_.back(), finding)) {
    Finding& run = runs_.back();
    if (run.count == 1)
      run.entry_step = finding.entry - run.entry;
    run.count += finding.count;
    run.host.end = finding.host.end;
    run.guest.end = finding.guest.end;
    return;
  }
  worst_ = std::max(worst_, row(finding.code).severity);
  codes_.set(static_cast<std::size_t>(finding.code));
  if (runs_.size() < most_runs_)
    runs_.push_back(std::move(finding));
  else
    omitted_ += finding.count;
}

void FindingList::add_all(const FindingList& other) {
  for (const Finding& finding : other.runs_)
    add(finding);
  omit_all(other);
}

void FindingList::omit_all(const FindingList& other) {
  omitted_ += other.omitted_;
  worst_ = std::max(worst_, other.worst_);
  codes_ |= other.codes_;
}

}  // namespace coldchain::finding
