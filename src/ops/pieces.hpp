// SPDX-License-Identifier: MIT
// What a pull must give the image at the top of a chain a place for, in guest order: cluster by
// cluster, or subcluster by subcluster where the image has them. Drawn from the map of the chain,
// so that each layer's tables are read once, whatever the depth.
#pragma once

#include <functional>
#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::ops {

struct Piece {
  GuestRange guest;
  bool is_zero = false;                     // becomes explicit zeros; else it is copied
  std::vector<analysis::Extent> sources{};  // of what is copied: they cover `guest`
};

using PieceConsumer = std::function<Result<void>(const Piece&)>;

// `base` is the layer that stays below the image; 0: none does.
[[nodiscard]] Result<void> for_each_piece(const graph::Chain& chain, std::size_t base,
                                          unsigned workers, const PieceConsumer& consumer);

}  // namespace coldchain::ops
