// SPDX-License-Identifier: MIT
// What a pull or rebase must give the image at the top of a chain a place for, in guest order:
// cluster by cluster, or subcluster by subcluster where the image has them. Drawn from the map of
// the chain, so that each layer's tables are read once, whatever the depth.
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

// What is below the image afterwards.
struct Below {
  std::size_t base = 0;  // a layer of the chain; 0: nothing, or
  // another chain: what that has the same need not be copied, which is seen by reading both.
  const graph::Chain* onto = nullptr;

  [[nodiscard]] bool is_nothing() const { return base == 0 && onto == nullptr; }
};

[[nodiscard]] Result<void> for_each_piece(const graph::Chain& chain, const Below& below,
                                          unsigned workers, const PieceConsumer& consumer);

}  // namespace coldchain::ops
