// SPDX-License-Identifier: MIT
// For verbs that only look: that a change of an image was interrupted, so that what is looked at is
// neither old nor new; or what else lies under the name of its journal.
#pragma once

#include "common_options.hpp"
#include "world.hpp"

#include <optional>

#include <coldchain/edit/side_files.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::cli {

// What is to be told of one image that is open; nothing where nothing is pending. However the image
// was named, it is looked for where its file lies, and so are the commands that are advised.
[[nodiscard]] std::optional<Error> pending_warning(const CommonOptions& options,
                                                   const graph::Node& image,
                                                   edit::SideFolders folders = {});

// Tells it of all images of a chain that are open. An error where --evidence forbids the look.
[[nodiscard]] Result<void> warn_of_pending(const CommonOptions& options, const graph::Node& top,
                                           World& world, const edit::SideFolders& folders = {});

}  // namespace coldchain::cli
