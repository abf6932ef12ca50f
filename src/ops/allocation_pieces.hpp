// SPDX-License-Identifier: MIT
// What must get a place of its own in an image so that no write of its guest to a range needs a
// cluster any more: what is below it, is compressed or shared with a snapshot, by a copy; what
// reads as zeros, by a place that is marked as zeros or, where that is asked for or version 2 knows
// no such marks, by a copy of zeros.
#pragma once

#include "pieces.hpp"

namespace coldchain::ops {

struct AllocationView {
  const graph::Chain* chain = nullptr;
  GuestRange range;  // whole clusters, but for the end of the disk
  bool writes_zeros = false;
  bool counts = false;  // the pieces are only counted: many zeros are one piece
  unsigned workers = 1;
};

// `own`, if given, is called for each host cluster that the image has there already.
[[nodiscard]] Result<void> for_each_allocation_piece(
    const AllocationView& view, const PieceConsumer& consumer,
    const std::function<void(HostRange)>& own = nullptr);

}  // namespace coldchain::ops
