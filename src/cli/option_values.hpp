// SPDX-License-Identifier: MIT
// Checks of the values of options while the command line is read. CLI11 puts the name of the option
// before these messages. Its own validators are not used: their messages show how it stores values.
#pragma once

#include "command_line.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coldchain::cli {

[[nodiscard]] ValueCheck one_of(std::vector<std::string> words);

// A whole number in decimal digits.
[[nodiscard]] ValueCheck number_from(std::uint64_t least, std::uint64_t most);

// For an option that is a rule, as --root: an empty variable in a script must not lift it.
[[nodiscard]] ValueCheck not_empty();

// The value in quotes, for a message. A long value is cut.
[[nodiscard]] std::string quoted_value(std::string_view value);

}  // namespace coldchain::cli
