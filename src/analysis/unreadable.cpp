// SPDX-License-Identifier: MIT
#include <coldchain/analysis/unreadable.hpp>

namespace coldchain::analysis {

void UnreadableRanges::add(std::span<const Extent> extents) {
  for (const Extent& extent : extents) {
    if (!extent.is_lost())
      continue;
    bytes_ += extent.guest.size();
    has_damaged_tables_ = has_damaged_tables_ || extent.unreadable != qcow2::Unreadable::past_end;
    add({extent.guest, extent.layer, extent.unreadable});
  }
}

void UnreadableRanges::add(const UnreadableRanges& more) {
  bytes_ += more.bytes_;
  has_damaged_tables_ = has_damaged_tables_ || more.has_damaged_tables_;
  for (const UnreadableRange& range : more.ranges_)
    add(range);
  omitted_ += more.omitted_;
}

void UnreadableRanges::add(const UnreadableRange& range) {
  UnreadableRange* last = ranges_.empty() ? nullptr : &ranges_.back();
  if (last != nullptr && omitted_ == 0 && last->guest.end == range.guest.begin &&
      last->layer == range.layer && last->reason == range.reason)
    last->guest.end = range.guest.end;
  else if (ranges_.size() < most_ranges)
    ranges_.push_back(range);
  else
    ++omitted_;
}

std::string_view to_string(qcow2::Unreadable reason) {
  switch (reason) {
    case qcow2::Unreadable::no:
    case qcow2::Unreadable::undecided:
      break;
    case qcow2::Unreadable::past_end:
      return "past-end";
    case qcow2::Unreadable::table:
      return "table-unreadable";
    case qcow2::Unreadable::entry:
      return "entry-invalid";
  }
  return "";
}

}  // namespace coldchain::analysis
