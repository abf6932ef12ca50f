// SPDX-License-Identifier: MIT
// A commit, as `commit`, `plan` and `resume` ask for it.
#pragma once

#include "app.hpp"
#include "common_options.hpp"
#include "progress.hpp"

#include <optional>
#include <string>
#include <vector>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>
#include <coldchain/ops/commit.hpp>

namespace coldchain::cli {

struct CommitRequest {
  CommonOptions common = options_of_change();
  std::string image;
  std::optional<io::FileIdentity> image_file{};  // which the image must be, where that is known
  std::optional<std::string> base;               // as it was given
  std::optional<std::uint64_t> argument{};       // instead: as a side file knows it
  std::optional<std::string> base_format{};      // which it must have, where that was given
  bool keeps = false;                            // the top is not emptied
  bool force = false;
  bool detects_zeroes = false;
  bool unreadable_are_zeros = false;
  ops::BitmapRule bitmaps = ops::BitmapRule::qemu;
  bool reparents = false;         // overlays of the image are pointed at the base,
  bool agrees = false;            // which their owner has seen in a plan
  std::vector<std::string> scan;  // folders whose images may read through the base
  CopyOptions copy;
  std::string cache = "writeback";
  edit::SideFolders folders;
  bool is_plan = false;
  bool quiet = false;
};

[[nodiscard]] Result<ExitStatus> run_commit(const CommitRequest& request, World& world);

// Gives up a commit that is pending, and says what of the base has changed.
[[nodiscard]] Result<ExitStatus> give_up_commit(const CommitRequest& request, World& world);

// `commit` below `plan`.
void add_commit_plan(CommandLine plan, World& world, int& status);

}  // namespace coldchain::cli
