// SPDX-License-Identifier: MIT
// A repair, as `repair` and `check -r` ask for it.
#pragma once

#include "app.hpp"
#include "common_options.hpp"

#include <vector>

#include <coldchain/edit/side_files.hpp>
#include <coldchain/report/check_report.hpp>

namespace coldchain::cli {

struct RepairRequest {
  std::string image;
  std::string tier;  // "leaks" or "all"
  bool dry_run = false;
  bool free_orphans = false;
  bool rebuild_mapping = false;
  std::vector<std::string> links;  // TABLE=INDEX
  bool no_undo = false;
  edit::SideFolders folders;
  bool quiet = false;
  bool list = false;
  bool shows_progress = false;
};

// -r, and what only a repair needs.
void add_repair_options(CommandLine app, RepairRequest& request);

[[nodiscard]] Result<ExitStatus> run_repair(const CommonOptions& common,
                                            const RepairRequest& request, World& world);

// `repair` below `plan`: a dry run.
void add_repair_plan(CommandLine plan, World& world, int& status);

[[nodiscard]] ExitStatus exit_status(report::Verdict verdict);

}  // namespace coldchain::cli
