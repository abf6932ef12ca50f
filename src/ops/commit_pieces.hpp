// SPDX-License-Identifier: MIT
// What a commit puts into its base, and how each cluster of the base takes it: what the base owns
// alone is overwritten, sector by sector; what it does not have, shares with a snapshot or holds
// compressed gets a place of its own, filled up with what the base shows there; zeros that the base
// would show anyway need nothing. By tables, and by what is known of layers that nothing is written
// to, so that going on after a kill comes to the same.
#pragma once

#include "pieces.hpp"

namespace coldchain::ops {

struct CommitView {
  const graph::Chain* chain = nullptr;       // of the top
  std::size_t base = 0;                      // its layer that is written to
  const graph::Chain* base_chain = nullptr;  // from that layer on
  unsigned workers = 1;
  // Data of the layers above the base that is zeros: sorted, disjoint.
  std::vector<GuestRange> zeroes{};

  // Whether the layers above the base have it, data or zeros.
  [[nodiscard]] bool is_above(const analysis::Extent& extent) const { return extent.layer < base; }
};

[[nodiscard]] Result<void> for_each_commit_piece(const CommitView& view,
                                                 const PieceConsumer& consumer);

}  // namespace coldchain::ops
