// SPDX-License-Identifier: MIT
// Data that is zeros throughout, which an image needs no clusters for. It is looked for once,
// before anything is written, in layers that nothing is written to: so a plan is exact, and who
// goes on after a kill comes to the same.
#pragma once

#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::ops {

struct ZeroSearch {
  GuestRange range;               // of the disk
  std::uint32_t first_layer = 0;  // what these provide is read,
  std::uint32_t end_layer = 0;    // without this one
  std::uint64_t grain = 0;        // bytes that are zeros together, or are not; a power of two
  unsigned workers = 1;
};

// Guest ranges, sorted and disjoint: what one layer provides of a grain, or all of it.
[[nodiscard]] Result<std::vector<GuestRange>> find_zeroes(const graph::Chain& chain,
                                                          const ZeroSearch& search);

// The map of a chain in which what lies in `zeroes` reads as zeros.
[[nodiscard]] Result<void> map_with_zeroes(const graph::Chain& chain, GuestRange range,
                                           const std::vector<GuestRange>& zeroes, unsigned workers,
                                           const analysis::ExtentConsumer& consumer);

}  // namespace coldchain::ops
