// SPDX-License-Identifier: MIT
// Images that read through another one.
#pragma once

#include "common_options.hpp"
#include "world.hpp"

#include <span>
#include <string>
#include <vector>

#include <coldchain/graph/node.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::cli {

// All in these folders that read through the file `image`, whatever they take it for.
[[nodiscard]] Result<std::vector<std::string>> find_readers(
    const io::FileSource& files, const io::OpenPolicy& policy,
    const std::vector<std::string>& directories, const io::FileIdentity& image, const World& world);

// Whether the image at `path` has the first of `nodes` in its chain, and below that all others, by
// the same formats: it does not read, for one, the bytes of that file.
[[nodiscard]] bool reads_alike(const io::FileSource& files, const io::OpenPolicy& policy,
                               const std::string& path, std::span<const graph::Node* const> nodes);

}  // namespace coldchain::cli
