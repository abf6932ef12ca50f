// SPDX-License-Identifier: MIT
// Copies what the pieces of a change name to where the image will have it.
#pragma once

#include "extents.hpp"
#include "pieces.hpp"

#include <optional>
#include <string>

#include <coldchain/base/progress.hpp>
#include <coldchain/edit/fresh_data.hpp>

namespace coldchain::ops {

// What is read from.
struct Sources {
  const graph::Chain* chain = nullptr;
  // Of a commit: the chain from layer `base` of the other on, which may have a larger disk.
  const graph::Chain* below = nullptr;
  std::size_t base = 0;
  unsigned workers = 1;
};

// Hands the pieces of a change to a consumer, each time the same ones.
using PieceSource = std::function<Result<void>(const PieceConsumer&)>;

// Where everything goes.
struct Target {
  const io::File* result = nullptr;       // the image as it will be; null: a raw one
  std::optional<std::string> snapshot{};  // ID of the internal snapshot that gets the pieces
  std::uint64_t cursor = 0;               // where they come in the order of the operation
};

// How far the copy is, in bytes of the guest.
struct Course {
  Progress progress{};
  ProgressPoint point{};
};

// Stops, as `interrupted`, where the progress says so.
[[nodiscard]] Result<void> write_pieces(edit::FreshWriter& writer, const Sources& sources,
                                        const Target& target, const PieceSource& pieces,
                                        Course& course);

}  // namespace coldchain::ops
