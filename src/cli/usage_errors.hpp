// SPDX-License-Identifier: MIT
// What is wrong with a command line, in our words. This is the only place that turns CLI11's errors
// into messages, and it prints nothing of them but what our own checks said (option_values.hpp).
#pragma once

#include <string>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace coldchain::cli {

// One line, which ends with the command that shows the help.
[[nodiscard]] std::string usage_error(const CLI::App& app, const CLI::ParseError& error);

}  // namespace coldchain::cli
