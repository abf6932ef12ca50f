// SPDX-License-Identifier: MIT
// What verbs share that change an image together with, or by what is in, the chain below it.
#pragma once

#include "change.hpp"
#include "common_options.hpp"

#include <span>
#include <string>
#include <vector>

#include <coldchain/report/planned.hpp>

namespace coldchain::cli {

using NodeChain = std::vector<const graph::Node*>;

// To open again what was opened before: its locks, which may be ours by now, are not tested.
[[nodiscard]] io::OpenPolicy policy_for_links(const CommonOptions& options);

// Where the file of a node that is open lies now.
[[nodiscard]] Result<io::Location> locate(const graph::Node& node);

// `refused` where the image is not the file whose journal was read, if that is given.
[[nodiscard]] Result<void> check_is_file(const graph::Node& image,
                                         const std::optional<io::FileIdentity>& file);

// `refused` where the format of the image was only probed, and its chain leads to another folder:
// who could write to a raw disk could write a header into it that names any file.
[[nodiscard]] Result<void> check_probed(const graph::Node& top, const CommonOptions& options,
                                        const std::string& image);

// `refused` where the chain was typed together with the image and is not what the image records: it
// is gone when the change is resumed, and no guest saw it.
[[nodiscard]] Result<void> check_recorded(const OpenedTree& tree, const CommonOptions& options,
                                          const std::string& image);

// `refused` where a chain that is opened again leads to other files than the one that was checked.
[[nodiscard]] Result<void> check_same_files(const NodeChain& now, const NodeChain& checked);

// The same files and formats, one after the other, all of them open.
[[nodiscard]] bool is_same_chain(std::span<const graph::Node* const> one,
                                 std::span<const graph::Node* const> other);

// As QEMU holds them for a backing file. `locked` where somebody writes to one.
[[nodiscard]] Result<void> lock_for_reading(const NodeChain& nodes);

// For a plan, which locks nothing: the same but for locks of its own. `force_share`: nothing.
[[nodiscard]] Result<void> check_may_read(const NodeChain& nodes, bool force_share);

// `refused` where one of the files is not what was opened: between looking and locking, somebody
// may have come.
[[nodiscard]] Result<void> check_unchanged(const io::FileSource& files, const NodeChain& nodes);

// What a plan of a change of these says of itself for `apply`.
[[nodiscard]] report::Planned planned(const World& world, const NodeChain& nodes);

// With an agreement, `refused` where a change is pending in the image that is not `operation`: it
// would have to be ended first, and nobody agreed to that.
[[nodiscard]] Result<void> check_nothing_else_pending(const std::optional<Agreement>& agreement,
                                                      const ChangeTarget& target,
                                                      const std::string& image,
                                                      edit::Operation operation);

}  // namespace coldchain::cli
