// SPDX-License-Identifier: MIT
// The program as a function of its arguments and a World. Exit status: docs/verbs/coldchain.md.
#pragma once

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
  in_use = 4,
  no_checks = 63
};

// `arguments` without the program's name.
[[nodiscard]] int run(std::vector<std::string> arguments, World& world);

// The verbs and their options. `world` and `status` outlive it.
[[nodiscard]] std::unique_ptr<CLI::App> make_app(World& world, int& status);

// Each verb adds its subcommand, whose callback sets `status`.
void register_allocate(CLI::App& app, World& world, int& status);
void register_apply(CLI::App& app, World& world, int& status);
void register_check(CLI::App& app, World& world, int& status);
void register_commit(CLI::App& app, World& world, int& status);
void register_info(CLI::App& app, World& world, int& status);
void register_layout(CLI::App& app, World& world, int& status);
void register_map(CLI::App& app, World& world, int& status);
void register_measure(CLI::App& app, World& world, int& status);
void register_plan(CLI::App& app, World& world, int& status);
void register_pull(CLI::App& app, World& world, int& status);
void register_rebase(CLI::App& app, World& world, int& status);
void register_repair(CLI::App& app, World& world, int& status);
void register_resume(CLI::App& app, World& world, int& status);
void register_tree(CLI::App& app, World& world, int& status);
void register_undo(CLI::App& app, World& world, int& status);

}  // namespace coldchain::cli
