// SPDX-License-Identifier: MIT
// Reparenting: an overlay of an image that was committed is pointed at the base, which shows the
// same. Only where the committed image ends before the base does is there a difference: what the
// overlay has nothing of its own for becomes an explicit zero there. Its bitmaps that record get
// the bits of the images that it no longer reads. No data is copied, so that the change is whole in
// its side file.
#pragma once

#include <coldchain/edit/commit.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/backing_link.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

struct Reparenting {
  edit::ChangeFacts change;
  std::vector<DirtyBitmap> bitmaps_dirty;  // an image that it no longer reads lacks this bitmap
};

// `transaction` is of the overlay's file, and empty; `chain` begins with the overlay, its second
// layer is the committed image, and `base` the layer that has everything afterwards. Errors:
// `refused` for an overlay that is damaged, dirty or encrypted or has an external data file, and
// where zeros would need clusters (version 2, or a disk that ends inside a cluster) or an internal
// snapshot would see what is behind the end of the committed image.
[[nodiscard]] Result<Reparenting> plan_reparenting(edit::Transaction& transaction,
                                                   const graph::Chain& chain, std::size_t base,
                                                   const BackingLink& link, unsigned workers);

}  // namespace coldchain::ops
