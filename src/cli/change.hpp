// SPDX-License-Identifier: MIT
// What verbs that change an image share: the file, open for writing and locked, and where its side
// files lie.
#pragma once

#include "app.hpp"

#include <functional>
#include <memory>
#include <string>

#include <coldchain/edit/resume.hpp>
#include <coldchain/edit/side_files.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::cli {

struct ChangeTarget {
  std::unique_ptr<io::WritableFile> image;
  edit::SideFiles side_files;
};

// The file `opened`, which was looked at as `path`: no name is asked again, so that no other file
// can be written in its place. Errors name the image; `locked` where another process uses it,
// `refused` where it has changed since it was opened.
[[nodiscard]] Result<ChangeTarget> open_for_change(const io::File& opened, const std::string& path,
                                                   const edit::SideFolders& folders);

// Whether two open files are one, as it was.
[[nodiscard]] bool is_unchanged(const io::File& now, const io::File& then);

// For a plan, which opens nothing for writing: what names and locks would be in the way of that.
// `force_share`: but for locks.
[[nodiscard]] Result<void> check_may_change(const graph::Node& image, bool force_share);

// For verbs that know no more of an image than its name.
struct TargetOptions {
  io::OpenPolicy policy;
  edit::SideFolders folders;
  std::string image;
};
void add_target_options(CommandLine app, TargetOptions& options);
[[nodiscard]] Result<ExitStatus> with_target(
    const TargetOptions& options, World& world,
    const std::function<Result<ExitStatus>(ChangeTarget& target)>& work);

// What edit::resume() and its like ask of an image. Fails where it cannot be checked at all.
[[nodiscard]] Result<edit::Examined> examine(const io::File& image);

void add_state_option(CommandLine app, edit::SideFolders& folders);
void add_undo_option(CommandLine app, edit::SideFolders& folders);

}  // namespace coldchain::cli
