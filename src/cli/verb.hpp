// SPDX-License-Identifier: MIT
// How a verb joins the program: its options, and what it does with them.
#pragma once

#include "app.hpp"
#include "common_options.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <coldchain/base/result.hpp>

namespace coldchain::cli {

// `Options` lives as long as the program. An error of `run` is printed and becomes `failure`. A
// verb that a signal stopped at a safe point ends as a shell reports a program that the signal
// killed.
template <class Options>
void add_verb_with(CommandLine app, const std::string& name, const std::string& description,
                   World& world, int& status,
                   const std::function<void(CommandLine, Options&)>& options,
                   const std::function<Result<ExitStatus>(const Options&, World&)>& run) {
  const auto values = std::make_shared<Options>();
  CommandLine verb = app.add_verb(name, description);
  options(verb, *values);
  verb.callback([values, &world, &status, run] {
    const Result<ExitStatus> outcome = run(*values, world);
    if (!outcome)
      world.complain(outcome.error());
    const bool is_stopped =
        !outcome && outcome.error().code == ErrorCode::interrupted && world.stop_signal() != 0;
    status = is_stopped ? 128 + world.stop_signal() : outcome.value_or(failure);
  });
}

// Pointers, so that each verb may name its functions `options` and `run_verb`.
template <class Options>
void add_verb(CommandLine app, const std::string& name, const std::string& description,
              World& world, int& status, void (*options)(CommandLine, Options&),
              Result<ExitStatus> (*run)(const Options&, World&)) {
  add_verb_with<Options>(app, name, description, world, status, options, run);
}

// The common options of a verb, or of the pull that it is.
template <class Options>
CommonOptions& common_of(Options& options) {
  if constexpr (requires { options.common; })
    return options.common;
  else
    return options.pull.common;
}

// A verb that only looks. It fails if --evidence refused a file that the verb went on without.
template <class Options>
void add_looking_verb(CommandLine app, const std::string& name, const std::string& description,
                      World& world, int& status, void (*options)(CommandLine, Options&),
                      Result<ExitStatus> (*run)(const Options&, World&)) {
  const auto access_times = std::make_shared<AccessTimes>();
  add_verb_with<Options>(
      app, name, description, world, status,
      [options, access_times](CommandLine verb, Options& values) {
        options(verb, values);
        add_evidence_option(verb, common_of(values), access_times);
      },
      [run, access_times](const Options& values, World& output) -> Result<ExitStatus> {
        const Result<ExitStatus> outcome = run(values, output);
        access_times->tell(output);
        const std::optional<Error> refusal = access_times->refusal();
        return refusal && outcome == success ? fail(*refusal) : outcome;
      });
}

}  // namespace coldchain::cli
