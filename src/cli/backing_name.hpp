// SPDX-License-Identifier: MIT
// The name by which a header leads to a layer that is below the image already.
#pragma once

#include "chain_change.hpp"

#include <coldchain/ops/backing_link.hpp>

namespace coldchain::cli {

// Of layer `base` of the chain `nodes`, for the header of the first: the name by which the layer
// above knows it, if that leads to the same from the image, too; else where it lies, if that does.
[[nodiscard]] Result<ops::BackingLink> link_to_layer(const io::FileSource& files,
                                                     const CommonOptions& options,
                                                     std::span<const graph::Node* const> nodes,
                                                     std::size_t base);

}  // namespace coldchain::cli
