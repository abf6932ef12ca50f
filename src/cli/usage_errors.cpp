// SPDX-License-Identifier: MIT
#include "usage_errors.hpp"

#include "option_values.hpp"
#include "suggestion.hpp"

#include <optional>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

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
  return fmt::format("there is no option {}.{} {}", quoted_value(name), did_you_mean(name, options),
                     help_of(verb));
}

std::string no_verb(const CLI::App& app, const std::string& typed) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands(nullptr))
    verbs.push_back(verb->get_name());
  const std::string wrong = typed.empty() ? fmt::format("'{}' needs a verb", command_of(app))
                                          : fmt::format("there is no verb {}", quoted_value(typed));
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
  if (!verb.get_subcommands(nullptr).empty())
    return no_verb(verb, first);
  if (first.empty())
    return std::nullopt;
  return fmt::format("{} is one operand too many; {}", quoted_value(first), help_of(verb));
}

std::string missing_operand(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_required() && option->count() == 0)
      return fmt::format("{} is missing; {}", option->get_name(), help_of(verb));
  }
  return fmt::format("an operand is missing; {}", help_of(verb));
}

// The option that CLI11 names first in its message, with or without dashes.
const CLI::Option* named_option(const CLI::App& verb, const std::string& message) {
  const std::string name = message.substr(0, message.find_first_of(": "));
  for (const std::string prefix : {"", "--", "-"}) {
    if (const CLI::Option* option = verb.get_option_no_throw(prefix + name))
      return option;
  }
  return nullptr;
}

// A value that is missing, or one of an option that has none.
std::string wrong_count(const CLI::App& verb, const std::string& message) {
  const CLI::Option* option = named_option(verb, message);
  if (option == nullptr)
    return fmt::format("an option has too many values or too few; {}", help_of(verb));
  return fmt::format("{} {}; {}", option->get_name(),
                     option->get_expected_max() == 0 ? "takes no value" : "needs a value",
                     help_of(verb));
}

std::string excluded(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    for (const CLI::Option* other : option->get_excludes()) {
      if (option->count() != 0 && other->count() != 0)
        return fmt::format("{} and {} exclude each other; {}", option->get_name(),
                           other->get_name(), help_of(verb));
    }
  }
  return fmt::format("two of the options exclude each other; {}", help_of(verb));
}

}  // namespace

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  if (const std::optional<std::string> wrong = wrong_word(app))
    return *wrong;
  const CLI::App& verb = typed_verb(app);
  const std::string message = error.what();
  if (dynamic_cast<const CLI::ValidationError*>(&error) != nullptr)
    return fmt::format("{} {}", message, help_of(verb));
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr)
    return missing_operand(verb);
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr)
    return wrong_count(verb, message);
  if (dynamic_cast<const CLI::ExcludesError*>(&error) != nullptr)
    return excluded(verb);
  return fmt::format("a value or an option is wrong; {}", help_of(verb));
}

}  // namespace coldchain::cli
