// SPDX-License-Identifier: MIT
#include "app.hpp"

#include <algorithm>
#include <sstream>

#include <CLI/CLI.hpp>

namespace coldchain::cli {

int run(std::vector<std::string> arguments, World& world) {
  CLI::App app("Reads and explains the disk images of stopped virtual machines.", "coldchain");
  app.require_subcommand(1);
  app.set_version_flag("--version", "coldchain " COLDCHAIN_VERSION);
  app.footer("'coldchain VERB --help' describes a verb.");
  int status = success;
  register_info(app, world, status);
  register_map(app, world, status);
  register_tree(app, world, status);
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
