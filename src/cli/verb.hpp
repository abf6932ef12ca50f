// SPDX-License-Identifier: MIT
// How a verb joins the program: its options, and what it does with them.
#pragma once

#include "app.hpp"

#include <memory>
#include <string>

#include <coldchain/base/result.hpp>

#include <CLI/CLI.hpp>

namespace coldchain::cli {

// `Options` lives as long as the program; an error of `run` is told and becomes `failure`. A verb
// that a signal stopped at a safe point ends as a shell reports a program that the signal killed.
template <class Options>
void add_verb(CLI::App& app, const std::string& name, const std::string& description, World& world,
              int& status, void (*options)(CLI::App&, Options&),
              Result<ExitStatus> (*run)(const Options&, World&)) {
  const auto values = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand(name, description);
  options(*verb, *values);
  verb->callback([values, &world, &status, run] {
    const Result<ExitStatus> outcome = run(*values, world);
    if (!outcome)
      world.complain(outcome.error());
    const bool is_stopped =
        !outcome && outcome.error().code == ErrorCode::interrupted && world.stop_signal() != 0;
    status = is_stopped ? 128 + world.stop_signal() : outcome.value_or(failure);
  });
}

}  // namespace coldchain::cli
