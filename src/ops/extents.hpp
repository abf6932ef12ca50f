// SPDX-License-Identifier: MIT
// Looking up what a chain, or one image of it, has at a guest offset, from left to right: each
// table is read once.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::ops {

// The part of `extent` that lies in `range`; empty where there is none.
[[nodiscard]] analysis::Extent clip(const analysis::Extent& extent, GuestRange range);

[[nodiscard]] inline bool reads_as_zeros(const analysis::Extent& extent) {
  return extent.zero || !extent.present;
}

// Longer by `range`, where that begins at its end.
template <class Range>
void append_range(std::vector<Range>& ranges, Range range) {
  if (!ranges.empty() && ranges.back().end == range.begin)
    ranges.back().end = range.end;
  else
    ranges.push_back(range);
}

// In order, without overlaps, none that touch.
template <class Range>
[[nodiscard]] std::vector<Range> sorted_and_merged(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (!merged.empty() && range.begin <= merged.back().end)
      merged.back().end = std::max(merged.back().end, range.end);
    else
      merged.push_back(range);
  }
  return merged;
}

// Bounds what a plan looks at. Each extent of an honest chain takes an entry of a table or the end
// of a hole, so that its files have storage for it; a small file can name one table many times.
class ExtentBudget {
 public:
  explicit ExtentBudget(const graph::Chain& chain);

  // `too_large` where there were more.
  [[nodiscard]] Result<void> spend(std::uint64_t extents);
  // The same for guest data that a plan reads or unpacks: clusters that many entries name, or that
  // unpack to very much, cost more than the files can honestly hold.
  [[nodiscard]] Result<void> spend_data(std::uint64_t bytes);
  // How many pieces may be made of them.
  [[nodiscard]] std::uint64_t most_pieces() const { return most_pieces_; }

 private:
  std::uint64_t most_extents_;
  std::uint64_t most_pieces_;
  std::uint64_t most_data_;  // bytes
  std::uint64_t spent_ = 0;
  std::uint64_t spent_data_ = 0;
};

// analysis::map, as far as the budget goes.
[[nodiscard]] Result<void> map_within(ExtentBudget& budget, const graph::Chain& chain,
                                      GuestRange range, unsigned workers,
                                      const analysis::ExtentConsumer& consumer);

// Which layer describes what of a chain, as far as the budget goes: the same extents, but data in a
// hole of its file is not described as zeros. Costs less where many chains share their layers.
[[nodiscard]] Result<void> map_layers_within(ExtentBudget& budget, const graph::Chain& chain,
                                             unsigned workers,
                                             const analysis::ExtentConsumer& consumer);

// The map of a chain. Offsets only grow.
class MapCursor {
 public:
  // `chain` outlives the cursor.
  MapCursor(const graph::Chain& chain, unsigned workers)
      : chain_(chain), workers_(workers), budget_(chain) {}

  // The extent that has `at`. Behind the end of the disk one that nobody has, without an end.
  [[nodiscard]] Result<analysis::Extent> at(GuestOffset at);

 private:
  const graph::Chain& chain_;
  unsigned workers_;
  ExtentBudget budget_;
  std::optional<analysis::Mapper> mapper_;  // from the first extent that is asked for on
  std::uint64_t window_bytes_ = 256ULL << 20;
  std::vector<analysis::Extent> window_;
  std::size_t next_ = 0;  // in it
};

// Counts the extents of a chain's map that parts are read from: however an extent is cut into
// pieces that are copied, it is one.
class ExtentCounter {
 public:
  // `chain` outlives the counter.
  ExtentCounter(const graph::Chain& chain, unsigned workers) : cursor_(chain, workers) {}

  // Whether `part` is of another extent than the part before. Offsets only grow.
  [[nodiscard]] Result<bool> is_of_another(const analysis::Extent& part);

 private:
  [[nodiscard]] Result<bool> goes_on_to(const analysis::Extent& part);

  MapCursor cursor_;
  std::optional<analysis::Extent> last_;
};

// What the tables of an image say of a cluster or subcluster.
enum class Place {
  none,        // what is below it shows
  zero,        // zeros, with or without a place
  own,         // data, where nobody else refers to it
  not_to_use,  // data that is shared or compressed
};

// The entries of the active L2 tables of a qcow2 image.
class EntryCursor {
 public:
  // `layer` is of a qcow2 image, and outlives the cursor.
  explicit EntryCursor(const graph::Layer& layer) : layer_(layer) {}

  struct Entry {
    qcow2::L2Entry cluster{0};
    qcow2::SubclusterBitmap subclusters{0};
    bool is_extended = false;

    // Of a subcluster of an extended entry; of any other, all of it.
    [[nodiscard]] Place place_of(unsigned subcluster) const;
  };
  [[nodiscard]] Result<Entry> at(GuestOffset at);
  // Up to where no table describes `range` from its beginning on.
  [[nodiscard]] GuestOffset end_without_table(GuestRange range) const;

 private:
  const graph::Layer& layer_;
  HostOffset table_at_;  // 0: none was read yet
  Bytes table_;
};

}  // namespace coldchain::ops
