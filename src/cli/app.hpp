// SPDX-License-Identifier: MIT
// The program as a function of its arguments and a World. Exit status: docs/verbs/coldchain.md.
#pragma once

#include "command_line.hpp"
#include "world.hpp"

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace coldchain::cli {

enum ExitStatus : int {
  success = 0,
  failure = 1,
  corrupt = 2,
  leaks = 3,
  low_on_space = 3,  // of tree
  in_use = 4,
  has_dependents = 5,
  no_checks = 63
};

// `arguments` without the program's name.
[[nodiscard]] int run(std::vector<std::string> arguments, World& world);

// The verbs and their options. `world` and `status` outlive it.
[[nodiscard]] std::unique_ptr<CLI::App> make_app(World& world, int& status);

// Each verb adds its subcommand, whose callback sets `status`.
void register_allocate(CommandLine app, World& world, int& status);
void register_apply(CommandLine app, World& world, int& status);
void register_check(CommandLine app, World& world, int& status);
void register_commit(CommandLine app, World& world, int& status);
void register_deps(CommandLine app, World& world, int& status);
void register_info(CommandLine app, World& world, int& status);
void register_layout(CommandLine app, World& world, int& status);
void register_map(CommandLine app, World& world, int& status);
void register_measure(CommandLine app, World& world, int& status);
void register_plan(CommandLine app, World& world, int& status);
void register_pull(CommandLine app, World& world, int& status);
void register_rebase(CommandLine app, World& world, int& status);
void register_repair(CommandLine app, World& world, int& status);
void register_resume(CommandLine app, World& world, int& status);
void register_tree(CommandLine app, World& world, int& status);
void register_undo(CommandLine app, World& world, int& status);

}  // namespace coldchain::cli
