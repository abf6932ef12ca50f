// SPDX-License-Identifier: MIT
// Looking up what a chain, or one image of it, has at a guest offset, from left to right: each
// table is read once.
#pragma once

#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::ops {

// The part of `extent` that lies in `range`; empty where there is none.
[[nodiscard]] analysis::Extent clip(const analysis::Extent& extent, GuestRange range);

[[nodiscard]] inline bool reads_as_zeros(const analysis::Extent& extent) {
  return extent.zero || !extent.present;
}

// The map of a chain. Offsets only grow.
class MapCursor {
 public:
  // `chain` outlives the cursor.
  MapCursor(const graph::Chain& chain, unsigned workers) : chain_(chain), workers_(workers) {}

  // The extent that has `at`. Behind the end of the disk one that nobody has, without an end.
  [[nodiscard]] Result<analysis::Extent> at(GuestOffset at);

 private:
  const graph::Chain& chain_;
  unsigned workers_;
  std::uint64_t window_bytes_ = 256ULL << 20;
  std::vector<analysis::Extent> window_;
  std::size_t next_ = 0;  // in it
};

// The entries of the active L2 tables of a qcow2 image.
class EntryCursor {
 public:
  // `layer` is of a qcow2 image, and outlives the cursor.
  explicit EntryCursor(const graph::Layer& layer) : layer_(layer) {}

  struct Entry {
    qcow2::L2Entry cluster{0};
    qcow2::SubclusterBitmap subclusters{0};  // of extended entries
  };
  [[nodiscard]] Result<Entry> at(GuestOffset at);

 private:
  const graph::Layer& layer_;
  HostOffset table_at_;  // 0: none was read yet
  Bytes table_;
};

}  // namespace coldchain::ops
