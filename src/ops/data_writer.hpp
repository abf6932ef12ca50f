// SPDX-License-Identifier: MIT
// Copies what the pieces of a change name to where the image will have it.
#pragma once

#include "extents.hpp"
#include "pieces.hpp"

#include <coldchain/base/progress.hpp>
#include <coldchain/edit/fresh_data.hpp>

namespace coldchain::ops {

// What is read from.
struct Sources {
  const graph::Chain* chain = nullptr;
  // Of a commit: the chain from layer `base` of the other on, which may have a larger disk.
  const graph::Chain* below = nullptr;
  std::size_t base = 0;
};

// Hands the pieces of a change to a consumer, each time the same ones.
using PieceSource = std::function<Result<void>(const PieceConsumer&)>;

// The image as it will be says where everything goes: `result` is its file, or null of a raw image,
// where every byte has its place. Stops, as `interrupted`, where `progress` says so.
[[nodiscard]] Result<void> write_pieces(edit::FreshWriter& writer, const Sources& sources,
                                        const io::File* result, const PieceSource& pieces,
                                        std::uint64_t total, const Progress& progress);

}  // namespace coldchain::ops
