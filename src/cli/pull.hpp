// SPDX-License-Identifier: MIT
// A pull or a safe rebase, as `pull`, `rebase`, `plan` and `resume` ask for it.
#pragma once

#include "app.hpp"
#include "common_options.hpp"
#include "progress.hpp"

#include <optional>
#include <string>

#include <coldchain/edit/resume.hpp>
#include <coldchain/edit/side_files.hpp>
#include <coldchain/ops/allocate.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::cli {

struct PullRequest {
  CommonOptions common = options_of_change();
  std::string image;
  std::optional<io::FileIdentity> image_file{};  // which the image must be, where that is known
  bool is_rebase = false;
  std::optional<std::string> base;          // as it was given; of a rebase by the image's header
  std::string base_format{};                // of a rebase with a base
  std::optional<std::uint64_t> argument{};  // instead: as a side file knows it
  std::optional<std::string> range;         // as it was given
  std::optional<ops::Allocation> allocation{};  // instead of another base
  edit::SideFolders folders;
  bool force = false;
  bool fills_snapshots = false;
  bool detects_zeroes = false;
  bool unreadable_are_zeros = false;
  ops::Compressed compressed = ops::Compressed::unpack;
  bool is_plan = false;
  bool quiet = false;
  CopyOptions copy;
};

[[nodiscard]] Result<ExitStatus> run_pull(const PullRequest& request, World& world);

// Gives up a pull that is pending and needs its plan for that.
[[nodiscard]] Result<edit::Resumed> give_up_pull(const PullRequest& request, World& world);

// What pull, rebase and allocate are asked for alike.
void add_pull_options(CommandLine app, PullRequest& pull);

// `pull` below `plan`.
void add_pull_plan(CommandLine plan, World& world, int& status);
// `rebase` there.
void add_rebase_plan(CommandLine plan, World& world, int& status);

}  // namespace coldchain::cli
