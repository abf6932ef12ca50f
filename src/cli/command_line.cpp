// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <CLI/CLI.hpp>

namespace coldchain::cli {

Option Option::description(const std::string& text) {
  option_->description(text);
  return *this;
}

Option Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option Option::check(const ValueCheck& is_right) {
  option_->check(CLI::Validator(is_right, ""));
  return *this;
}

Option Option::required() {
  option_->required();
  return *this;
}

Option Option::excludes(Option other) {
  option_->excludes(other.option_);
  return *this;
}

Option Option::delimiter(char separator) {
  option_->delimiter(separator);
  return *this;
}

Option Option::takes_one_word() {
  option_->allow_extra_args(false);
  return *this;
}

Option Option::takes_all() {
  option_->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}

Option Option::each(const std::function<void(const std::string&)>& take) {
  option_->each(take);
  return *this;
}

Option CommandLine::add_option(const std::string& names, std::string& value,
                               const std::string& description) {
  return Option(app_->add_option(names, value, description));
}

Option CommandLine::add_option(const std::string& names, std::optional<std::string>& value,
                               const std::string& description) {
  return Option(app_->add_option(names, value, description));
}

Option CommandLine::add_option(const std::string& names, std::vector<std::string>& values,
                               const std::string& description) {
  return Option(app_->add_option(names, values, description));
}

Option CommandLine::add_option(const std::string& names, unsigned& value,
                               const std::string& description) {
  return Option(app_->add_option(names, value, description));
}

Option CommandLine::add_option(const std::string& names, std::optional<std::size_t>& value,
                               const std::string& description) {
  return Option(app_->add_option(names, value, description));
}

Option CommandLine::add_option(const std::string& names,
                               const std::function<void(const std::string&)>& take,
                               const std::string& description) {
  return Option(app_->add_option_function<std::string>(names, take, description));
}

Option CommandLine::add_flag(const std::string& names, bool& is_given,
                             const std::string& description) {
  return Option(app_->add_flag(names, is_given, description));
}

Option CommandLine::add_flag(const std::string& names, const std::function<void()>& take,
                             const std::string& description) {
  return Option(app_->add_flag_callback(names, take, description));
}

std::optional<Option> CommandLine::find_option(const std::string& name) const {
  CLI::Option* option = app_->get_option_no_throw(name);
  return option != nullptr ? std::optional(Option(option)) : std::nullopt;
}

void CommandLine::remove_option(const std::string& name) {
  app_->remove_option(app_->get_option(name));
}

CommandLine CommandLine::add_verb(const std::string& name, const std::string& description) {
  return CommandLine(*app_->add_subcommand(name, description));
}

void CommandLine::require_verb() {
  app_->require_subcommand(1);
}

void CommandLine::footer(const std::string& text) {
  app_->footer(text);
}

void CommandLine::callback(const std::function<void()>& run) {
  app_->callback(run);
}

}  // namespace coldchain::cli
