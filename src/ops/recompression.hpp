// SPDX-License-Identifier: MIT
// Whole clusters as an image would have them compressed: by its cluster size and compression.
#pragma once

#include "pieces.hpp"

#include <coldchain/base/bytes.hpp>

namespace coldchain::ops {

struct RecompressedCluster {
  GuestRange guest;
  ByteView content;  // the whole cluster; what is behind the end of the disk is zeros
  ByteView stream;   // whole sectors; empty where these would not be less than a cluster
};
using RecompressedConsumer = std::function<Result<void>(const RecompressedCluster&)>;

// What `image` gets by a piece of the chain that is read, in order, the same each time.
[[nodiscard]] Result<void> for_each_recompressed(graph::Reader& reader, const qcow2::Image& image,
                                                 const Piece& piece, unsigned workers,
                                                 const RecompressedConsumer& take);

}  // namespace coldchain::ops
