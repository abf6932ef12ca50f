// SPDX-License-Identifier: MIT
#include "app.hpp"

#include <algorithm>
#include <sstream>

#include <coldchain/base/text.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

int run(std::vector<std::string> arguments, World& world) {
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
      world.complain(
          {ErrorCode::invalid_argument,
           fmt::format("there is no verb '{}'; there are {}. 'coldchain --help' tells more",
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

}  // namespace coldchain::cli
