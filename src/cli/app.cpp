// SPDX-License-Identifier: MIT
#include "app.hpp"

#include "suggestion.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <optional>
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

// The verb that was typed: of 'plan pull', pull.
const CLI::App& typed_verb(const CLI::App& app) {
  const std::vector<CLI::App*> verbs = app.get_subcommands();
  return verbs.empty() ? app : typed_verb(*verbs.front());
}

// 'coldchain plan pull'.
std::string command_of(const CLI::App& verb) {
  const CLI::App* parent = verb.get_parent();
  return parent == nullptr ? verb.get_name() : command_of(*parent) + " " + verb.get_name();
}

std::string help_of(const CLI::App& verb) {
  return fmt::format("'{} --help' lists its options\n", command_of(verb));
}

std::string no_option(const CLI::App& verb, const std::string& typed) {
  const std::string name = typed.substr(0, typed.find('='));
  std::vector<std::string> options;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& word : option->get_lnames())
      options.push_back("--" + word);
  }
  return fmt::format("there is no option '{}'.{} {}", to_terminal(name),
                     did_you_mean(name, options), help_of(verb));
}

std::string no_verb(const CLI::App& app, const std::string& typed) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    verbs.push_back(verb->get_name());
  const std::string wrong = typed.empty()
                                ? fmt::format("'{}' needs a verb", command_of(app))
                                : fmt::format("there is no verb '{}'", to_terminal(typed));
  return fmt::format("{}; there are {}.{} See '{} --help'\n", wrong, fmt::join(verbs, ", "),
                     typed.empty() ? "" : did_you_mean(typed, verbs), command_of(app));
}

// A word that no verb takes, or a verb that is missing; nothing if the error is another one.
std::optional<std::string> wrong_word(const CLI::App& app) {
  const CLI::App& verb = typed_verb(app);
  const std::vector<std::string> extra = app.remaining(true);
  const std::string first = extra.empty() ? "" : extra.front();
  if (first.starts_with('-'))
    return no_option(verb, first);
  if (!verb.get_subcommands([](const CLI::App*) { return true; }).empty())
    return no_verb(verb, first);
  if (first.empty())
    return std::nullopt;
  return fmt::format("'{}' is one operand too many; {}", to_terminal(first), help_of(verb));
}

int run_verbs(std::vector<std::string> arguments, World& world) {
  CLI::App app("Reads, explains, checks and repairs the disk images of stopped virtual machines.",
               "coldchain");
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as getopt
  app.set_version_flag("-V,--version", "coldchain " COLDCHAIN_VERSION);
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
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants a vector
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = app.exit(error, out, err);
    if (code == 0)
      return world.out(out.str()) ? success : failure;
    world.err("coldchain: " + wrong_word(app).value_or(err.str()));
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
