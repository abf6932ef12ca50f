// SPDX-License-Identifier: MIT
// What verbs that change an image share: the file, open for writing and locked, and where its side
// files lie.
#pragma once

#include "common_options.hpp"

#include <coldchain/edit/commit.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::cli {

struct ChangeTarget {
  io::WritableTarget image;
  edit::SideFiles side_files;
};

// Errors name the image; `locked` where another process uses it.
[[nodiscard]] Result<ChangeTarget> open_for_change(const io::FileSource& files,
                                                   const std::string& path,
                                                   const std::string& state_folder);

// What edit::resume() and edit::undo() count. An image that cannot be checked at all has the most.
[[nodiscard]] Result<std::uint64_t> count_corruptions(const io::File& image);

void add_state_option(CLI::App& app, std::string& state_folder);

}  // namespace coldchain::cli
