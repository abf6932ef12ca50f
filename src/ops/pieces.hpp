// SPDX-License-Identifier: MIT
// What a change must give an image a place for, or put into a place that it has, in guest order.
// Drawn from the map of the chain, so that each layer's tables are read once, whatever the depth.
#pragma once

#include "extents.hpp"

#include <functional>
#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

enum class PieceKind : std::uint8_t {
  zero,        // whole clusters, or subclusters, become explicit zeros
  reserve,     // the same, and get a place of their own
  copy,        // the same get a place of their own, and the content of the sources
  compressed,  // whole clusters get the content of the sources compressed, as it is there
  recompress,  // whole clusters get the content of the sources, compressed if that takes less room
  overwrite,   // sectors of a place that is the image's alone get the content of the sources
};

struct Piece {
  GuestRange guest;
  PieceKind kind = PieceKind::copy;
  std::vector<analysis::Extent> sources{};  // they cover `guest`; of zeros none
  std::vector<analysis::Extent> lost{};     // sources that cannot be read, and are taken as zeros
};

using PieceConsumer = std::function<Result<void>(const Piece&)>;

// Joins what is handed to it into pieces that are neither too many nor too large.
class PieceJoiner {
 public:
  // With `counts`, many zeros that are copied come in one piece: nothing stops between them.
  PieceJoiner(const PieceConsumer& consumer, const graph::Chain& chain, bool counts = false)
      : consumer_(consumer),
        chain_(chain),
        left_(ExtentBudget(chain).most_pieces()),
        counts_(counts) {}

  // `sources` cover `range`, and may reach beyond it.
  [[nodiscard]] Result<void> add(PieceKind kind, GuestRange range,
                                 const std::vector<analysis::Extent>& sources);
  // Hands out the last one. `corrupt`, with the ranges, where sources cannot be read, unless they
  // are taken as zeros.
  [[nodiscard]] Result<void> finish();

 private:
  [[nodiscard]] Result<void> hand_out();
  [[nodiscard]] Error unreadable_error() const;

  const PieceConsumer& consumer_;
  const graph::Chain& chain_;
  analysis::UnreadableRanges unreadable_;
  std::uint64_t left_;  // pieces
  bool counts_;
  Piece piece_;
};

// What is below the image of a pull or rebase afterwards.
struct Below {
  bool stays = false;    // all that is below it now; else
  std::size_t base = 0;  // a layer of the chain; 0: nothing, or
  // another chain: what that has the same need not be copied, which is seen by reading both.
  const graph::Chain* onto = nullptr;
  // Data of the layers that go that is zeros: sorted, disjoint.
  std::vector<GuestRange> zeroes{};
  // The chain is read through an internal snapshot, whose copied flags say nothing.
  bool is_snapshot = false;
  Compressed compressed = Compressed::unpack;
};

// Of a compressed piece.
struct CompressedCluster {
  GuestOffset guest;
  const graph::Layer* layer = nullptr;
  qcow2::CompressedExtent bytes;  // in the layer's file
};
using CompressedConsumer = std::function<Result<void>(const CompressedCluster&)>;
[[nodiscard]] Result<void> for_each_compressed(const graph::Chain& chain, const Piece& piece,
                                               const CompressedConsumer& take);

// What a pull or rebase copies into the image at the top of `chain`: cluster by cluster, or
// subcluster by subcluster where the image has them. `range` is whole clusters, but for the end of
// the disk.
[[nodiscard]] Result<void> for_each_piece(const graph::Chain& chain, GuestRange range,
                                          const Below& below, unsigned workers,
                                          const PieceConsumer& consumer);

}  // namespace coldchain::ops
