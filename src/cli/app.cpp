// SPDX-License-Identifier: MIT
#include "app.hpp"

#include "usage_errors.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <new>
#include <sstream>
#include <stdexcept>

#include <CLI/CLI.hpp>

namespace coldchain::cli {

namespace {

constexpr std::array<std::string_view, 7> looking_verbs = {"deps",    "info", "layout", "map",
                                                           "measure", "plan", "tree"};

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

// A flag is given or not. `--list=no` would be a second way to say that.
void refuse_values_of_flags(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_expected_max() == 0)
      option->disable_flag_override();
  }
  for (CLI::App* verb : app.get_subcommands(nullptr))
    refuse_values_of_flags(*verb);
}

bool takes_value(const CLI::App& app, const std::string& name) {
  const CLI::Option* option = app.get_option_no_throw(name);
  if (option != nullptr && option->get_expected_max() != 0)
    return true;
  const std::vector<const CLI::App*> verbs = app.get_subcommands(nullptr);
  return std::any_of(verbs.begin(), verbs.end(),
                     [&](const CLI::App* verb) { return takes_value(*verb, name); });
}

// '--root=' becomes '--root' and an empty word. CLI11 would take the next word for its value.
std::vector<std::string> with_empty_values(const CLI::App& app,
                                           const std::vector<std::string>& arguments) {
  std::vector<std::string> words;
  for (auto word = arguments.begin(); word != arguments.end(); ++word) {
    if (*word == "--") {
      words.insert(words.end(), word, arguments.end());
      break;
    }
    const std::string name = word->substr(0, word->size() - (word->ends_with('=') ? 1 : 0));
    const bool is_empty_value =
        word->starts_with("--") && word->ends_with('=') && takes_value(app, name);
    words.push_back(is_empty_value ? name : *word);
    if (is_empty_value)
      words.emplace_back();
  }
  return words;
}

// The command that a plan is of. How it is looked at is no part of it: the verb has no --evidence.
std::vector<std::string> planned_command(const std::vector<std::string>& arguments) {
  const auto end_of_options = std::find(arguments.begin(), arguments.end(), "--");
  std::vector<std::string> command;
  std::remove_copy(arguments.begin() + 1, end_of_options, std::back_inserter(command),
                   "--evidence");
  command.insert(command.end(), end_of_options, arguments.end());
  return command;
}

int run_verbs(const std::vector<std::string>& arguments, World& world) {
  int status = success;
  const std::unique_ptr<CLI::App> app = make_app(world, status);
  if (!arguments.empty() && arguments.front() == "plan")
    world.agreement = Agreement{.command = planned_command(arguments), .plan = ""};
  try {
    std::vector<std::string> words = with_empty_values(*app, arguments);
    std::reverse(words.begin(), words.end());  // as CLI11 wants a vector
    app->parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) {
      world.err("coldchain: " + usage_error(*app, error));
      return failure;
    }
    std::ostringstream out;
    std::ostringstream ignored;
    (void)app->exit(error, out, ignored);  // prints the help or the version
    return world.out(out.str()) ? success : failure;
  }
  return status;
}

}  // namespace

std::unique_ptr<CLI::App> make_app(World& world, int& status) {
  auto app = std::make_unique<CLI::App>(
      "Reads, explains, checks and repairs the disk images of stopped virtual machines.",
      "coldchain");
  app->require_subcommand(1);
  app->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as getopt
  app->set_version_flag("-V,--version", "coldchain " COLDCHAIN_VERSION);
  app->footer("'coldchain VERB --help' describes a verb.");
  const CommandLine verbs(*app);
  register_allocate(verbs, world, status);
  register_apply(verbs, world, status);
  register_check(verbs, world, status);
  register_commit(verbs, world, status);
  register_deps(verbs, world, status);
  register_info(verbs, world, status);
  register_layout(verbs, world, status);
  register_map(verbs, world, status);
  register_measure(verbs, world, status);
  register_plan(verbs, world, status);
  register_pull(verbs, world, status);
  register_rebase(verbs, world, status);
  register_repair(verbs, world, status);
  register_resume(verbs, world, status);
  register_tree(verbs, world, status);
  register_undo(verbs, world, status);
  refuse_values_of_flags(*app);
  return app;
}

// A size that no memory has is a std::length_error.
int run(std::vector<std::string> arguments, World& world) {
  const bool may_change =
      !arguments.empty() && std::find(looking_verbs.begin(), looking_verbs.end(),
                                      arguments.front()) == looking_verbs.end();
  try {
    return run_verbs(arguments, world);
  } catch (const std::bad_alloc&) {
    return out_of_memory(may_change, world);
  } catch (const std::length_error&) {
    return out_of_memory(may_change, world);
  }
}

}  // namespace coldchain::cli
