// SPDX-License-Identifier: MIT
// The overlays of an image that is committed: they are found and planned before the first write,
// locked from then on, and pointed at the base when that has everything.
#pragma once

#include "chain_change.hpp"
#include "change.hpp"

#include <memory>
#include <string>
#include <vector>

#include <coldchain/edit/transaction.hpp>

namespace coldchain::cli {

struct Overlay {
  std::string path;
  std::unique_ptr<graph::Node> image;
  std::unique_ptr<edit::Transaction> transaction{};  // of its file
  edit::ChangeFacts change{};
};

// Of the image at the top of `nodes`, whose layer `base` gets what is above it; planned.
[[nodiscard]] Result<std::vector<Overlay>> find_overlays(
    const io::FileSource& files, const CommonOptions& options,
    const std::vector<std::string>& directories, const NodeChain& nodes, std::size_t base,
    const World& world);

// Images that name the file of the first of `nodes`, but read something else of it than that chain,
// such as its bytes.
[[nodiscard]] Result<std::vector<std::string>> find_strange_overlays(
    const io::FileSource& files, const CommonOptions& options,
    const std::vector<std::string>& directories, const NodeChain& nodes, const World& world);

// Of images that read through `base`, a file, ends what a reparenting left that was stopped: each
// keeps the link that it has.
[[nodiscard]] Result<void> end_reparentings(const io::FileSource& files,
                                            const CommonOptions& options,
                                            const std::vector<std::string>& directories,
                                            const graph::Node& base,
                                            const edit::SideFolders& folders, const World& world);

// `refused` where another change is pending in one of them.
[[nodiscard]] Result<std::vector<ChangeTarget>> lock_overlays(const io::FileSource& files,
                                                              const std::vector<Overlay>& overlays,
                                                              const edit::SideFolders& folders);

[[nodiscard]] Result<void> reparent(const std::vector<Overlay>& overlays,
                                    std::vector<ChangeTarget>& targets);

}  // namespace coldchain::cli
