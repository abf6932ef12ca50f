// SPDX-License-Identifier: MIT
#include "app.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <sstream>
#include <stdexcept>

#include <coldchain/base/text.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

constexpr std::array<std::string_view, 6> looking_verbs = {"info",    "layout", "map",
                                                           "measure", "plan",   "tree"};

// Whoever was in the middle of a change has left its side file where it was.
int out_of_memory(bool may_change, World& world) {
  world.complain({ErrorCode::io_error,
                  may_change
                      ? "out of memory: 'coldchain resume IMAGE' continues a change that was "
                        "begun"
                      : "out of memory",
                  ENOMEM});
  return failure;
}

int run_verbs(std::vector<std::string> arguments, World& world) {
  CLI::App app("Reads, explains, checks and repairs the disk images of stopped virtual machines.",
               "coldchain");
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as getopt
  app.set_version_flag("--version", "coldchain " COLDCHAIN_VERSION);
  app.footer("'coldchain VERB --help' describes a verb.");
  int status = success;
  register_allocate(app, world, status);
  register_apply(app, world, status);
  register_check(app, world, status);
  register_commit(app, world, status);
  register_info(app, world, status);
  register_layout(app, world, status);
  register_map(app, world, status);
  register_measure(app, world, status);
  register_plan(app, world, status);
  register_pull(app, world, status);
  register_rebase(app, world, status);
  register_repair(app, world, status);
  register_resume(app, world, status);
  register_tree(app, world, status);
  register_undo(app, world, status);
  if (!arguments.empty() && arguments.front() == "plan")
    world.agreement = Agreement{.command = {arguments.begin() + 1, arguments.end()}, .plan = ""};
  if (!arguments.empty() && !arguments.front().starts_with('-')) {
    std::vector<std::string> verbs;
    for (const CLI::App* verb : app.get_subcommands({}))
      verbs.push_back(verb->get_name());
    if (std::find(verbs.begin(), verbs.end(), arguments.front()) == verbs.end()) {
      world.complain({ErrorCode::invalid_argument,
                      fmt::format("there is no verb '{}'; there are {}. See 'coldchain --help'",
                                  to_terminal(arguments.front()), fmt::join(verbs, ", ")),
                      0});
      return failure;
    }
  }
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants a vector
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = app.exit(error, out, err);
    if (code == 0)
      return world.out(out.str()) ? success : failure;
    std::string text = err.str();
    world.err("coldchain: " + text);
    return failure;
  }
  return status;
}

}  // namespace

// A size that no memory has is a std::length_error.
int run(std::vector<std::string> arguments, World& world) {
  const bool may_change =
      !arguments.empty() && std::find(looking_verbs.begin(), looking_verbs.end(),
                                      arguments.front()) == looking_verbs.end();
  try {
    return run_verbs(std::move(arguments), world);
  } catch (const std::bad_alloc&) {
    return out_of_memory(may_change, world);
  } catch (const std::length_error&) {
    return out_of_memory(may_change, world);
  }
}

}  // namespace coldchain::cli
