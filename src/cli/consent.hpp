// SPDX-License-Identifier: MIT
// What allows a change to do more than it does by itself. It is given on the command line of the
// run that writes. A plan file says only what to do: what its command allowed when it was planned
// counts no more.
#pragma once

#include "common_options.hpp"
#include "progress.hpp"

#include <optional>
#include <string>
#include <vector>

#include <coldchain/edit/side_files.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::cli {

// Where `apply` runs a verb, what was given to `apply` takes the place of these options. The last
// two may be null.
void take_consent(const World& world, CommonOptions& common, edit::SideFolders& folders,
                  bool* force, bool* unreadable_are_zeros = nullptr);

// The same of how it copies.
void take_copy_options(const World& world, CopyOptions& copy);

// Where `apply` runs a verb, before the first write: says which images will be written to.
// `refused` where images were given to `apply`, and one of `written` is not among them.
[[nodiscard]] Result<void> check_may_write(World& world,
                                           const std::vector<const graph::Node*>& written);

}  // namespace coldchain::cli
