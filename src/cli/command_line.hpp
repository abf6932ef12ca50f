// SPDX-License-Identifier: MIT
// The options of the program and of its verbs, as they are declared. CLI11 parses them; only
// command_line.cpp, app.cpp and usage_errors.cpp know it, because its header takes longer to
// compile than all the rest of a verb.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace coldchain::cli {

// Says what is wrong with a value, or nothing (option_values.hpp). It may replace the value.
using ValueCheck = std::function<std::string(std::string& value)>;

// An option or operand of a verb. A handle: the verb owns it.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option description(const std::string& text);
  Option type_name(const std::string& name);
  Option check(const ValueCheck& is_right);
  Option required();
  Option excludes(Option other);
  // A list in one word, as A,B.
  Option delimiter(char separator);
  // The word after the value is not another value.
  Option takes_one_word();
  // If it is given several times, all values count, not the last one.
  Option takes_all();
  // Calls `take` with each value.
  Option each(const std::function<void(const std::string&)>& take);

 private:
  CLI::Option* option_;
};

// The program or one verb. A handle: the program owns it.
class CommandLine {
 public:
  explicit CommandLine(CLI::App& app) : app_(&app) {}

  // The values are stored when the command line is read; they outlive it.
  Option add_option(const std::string& names, std::string& value, const std::string& description);
  Option add_option(const std::string& names, std::optional<std::string>& value,
                    const std::string& description);
  Option add_option(const std::string& names, std::vector<std::string>& values,
                    const std::string& description);
  Option add_option(const std::string& names, unsigned& value, const std::string& description);
  Option add_option(const std::string& names, std::optional<std::size_t>& value,
                    const std::string& description);
  Option add_option(const std::string& names, const std::function<void(const std::string&)>& take,
                    const std::string& description);
  // Given or not given.
  Option add_flag(const std::string& names, bool& is_given, const std::string& description);
  Option add_flag(const std::string& names, const std::function<void()>& take,
                  const std::string& description);

  [[nodiscard]] std::optional<Option> find_option(const std::string& name) const;
  void remove_option(const std::string& name);

  CommandLine add_verb(const std::string& name, const std::string& description);
  void require_verb();
  // Printed below the help.
  void footer(const std::string& text);
  // Called when the verb was read.
  void callback(const std::function<void()>& run);

 private:
  CLI::App* app_;
};

}  // namespace coldchain::cli
