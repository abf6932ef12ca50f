// SPDX-License-Identifier: MIT
// Who else reads what a commit changes.
#pragma once

#include "chain_change.hpp"

#include <string>
#include <vector>

#include <coldchain/ops/commit.hpp>

namespace coldchain::cli {

// A commit that is planned.
struct PlannedCommit {
  const NodeChain& nodes;  // from the top on
  std::size_t base;        // in them
  const graph::Chain& chain;
  const graph::Chain& base_chain;
  bool changes_metadata;  // of the base
  const ops::Commit& commit;
  bool empties;  // the top
};

// Images in these folders that would read something else afterwards: the guest of the base does, or
// they take the file of an image for something else than this chain does, such as for its bytes.
// Not those of the layers in between. What cannot be looked at is told.
[[nodiscard]] Result<std::vector<std::string>> find_commit_dependents(
    const io::FileSource& files, const CommonOptions& options,
    const std::vector<std::string>& directories, const PlannedCommit& planned, World& world);

}  // namespace coldchain::cli
