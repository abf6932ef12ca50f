// SPDX-License-Identifier: MIT
// plan VERB: what a change would do and cost.
#include "allocate.hpp"
#include "commit.hpp"
#include "pull.hpp"
#include "repair.hpp"

#include <CLI/CLI.hpp>

namespace coldchain::cli {

void register_plan(CLI::App& app, World& world, int& status) {
  CLI::App* plan =
      app.add_subcommand("plan", "Show what a change would do and how much it would write");
  plan->require_subcommand(1);
  add_allocate_plan(*plan, world, status);
  add_commit_plan(*plan, world, status);
  add_pull_plan(*plan, world, status);
  add_rebase_plan(*plan, world, status);
  add_repair_plan(*plan, world, status);
}

}  // namespace coldchain::cli
