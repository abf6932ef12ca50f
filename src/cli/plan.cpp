// SPDX-License-Identifier: MIT
// plan VERB: what a change would do and cost.
#include "allocate.hpp"
#include "commit.hpp"
#include "pull.hpp"
#include "repair.hpp"

namespace coldchain::cli {

void register_plan(CommandLine app, World& world, int& status) {
  CommandLine plan =
      app.add_verb("plan", "Show what a change would do and how much it would write");
  plan.require_verb();
  add_allocate_plan(plan, world, status);
  add_commit_plan(plan, world, status);
  add_pull_plan(plan, world, status);
  add_rebase_plan(plan, world, status);
  add_repair_plan(plan, world, status);
}

}  // namespace coldchain::cli
