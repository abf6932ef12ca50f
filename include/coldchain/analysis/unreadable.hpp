// SPDX-License-Identifier: MIT
// What of a guest's disk cannot be read, gathered from a map: how much, and the first ranges.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <coldchain/analysis/map.hpp>

namespace coldchain::analysis {

struct UnreadableRange {
  GuestRange guest;
  std::uint32_t layer = 0;  // position in the chain
  qcow2::Unreadable reason{};
};

// In guest order. The list is bounded; the sums are exact.
class UnreadableRanges {
 public:
  static constexpr std::size_t most_ranges = 1024;

  // Takes the extents that cannot be read, and passes over the others.
  void add(std::span<const Extent> extents);
  // What comes behind all that was added.
  void add(const UnreadableRanges& more);

  [[nodiscard]] const std::vector<UnreadableRange>& ranges() const { return ranges_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t omitted() const { return omitted_; }  // ranges that are not listed
  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  // Whether QEMU could not map the disk either: a table or an entry is damaged.
  [[nodiscard]] bool has_damaged_tables() const { return has_damaged_tables_; }

 private:
  void add(const UnreadableRange& range);

  std::vector<UnreadableRange> ranges_;
  std::uint64_t bytes_ = 0;
  std::uint64_t omitted_ = 0;
  bool has_damaged_tables_ = false;
};

// "past-end", "table-unreadable", "entry-invalid": the words of JSON.
[[nodiscard]] std::string_view to_string(qcow2::Unreadable reason);

}  // namespace coldchain::analysis
