// SPDX-License-Identifier: MIT
// What is suspicious about the links of a chain, said before the chain is changed.
#pragma once

#include "chain_change.hpp"
#include "world.hpp"

namespace coldchain::cli {

// Says on standard error which backing file was modified after its overlay, and which image has
// another format than the one that is recorded.
void warn_of_links(const NodeChain& nodes, World& world);

// `refused` where an image that is to be written is recorded as raw, but its content begins like an
// image of another format: a write would destroy that image. `overlay` records the format.
[[nodiscard]] Result<void> check_is_raw(const graph::Node& written, const graph::Node& overlay,
                                        const edit::SideFolders& folders);

}  // namespace coldchain::cli
