// SPDX-License-Identifier: MIT
// Which layer a commit is into.
#pragma once

#include "chain_change.hpp"
#include "commit.hpp"

namespace coldchain::cli {

// As QEMU, by the name that the layer above has, and from the folder of the image; else from here.
// Without a name, the layer below the first of `nodes`. `not_found` where there is no such layer.
[[nodiscard]] Result<std::size_t> find_commit_base(const io::FileSource& files,
                                                   const CommitRequest& request,
                                                   const NodeChain& nodes);

}  // namespace coldchain::cli
