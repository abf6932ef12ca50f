// SPDX-License-Identifier: MIT
#include "option_values.hpp"

#include "suggestion.hpp"

#include <algorithm>
#include <charconv>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

ValueCheck one_of(std::vector<std::string> words) {
  return [words = std::move(words)](const std::string& value) {
    if (std::find(words.begin(), words.end(), value) != words.end())
      return std::string();
    return fmt::format("{} is none of: {}.{}", quoted_value(value), fmt::join(words, ", "),
                       did_you_mean(value, words));
  };
}

ValueCheck number_from(std::uint64_t least, std::uint64_t most) {
  return [least, most](std::string& value) {
    std::uint64_t number = 0;
    const char* const end = value.data() + value.size();
    const auto [after, error] = std::from_chars(value.data(), end, number);
    if (error != std::errc{} || after != end || number < least || number > most)
      return fmt::format("{} is not a number from {} to {}.", quoted_value(value), least, most);
    value = std::to_string(number);  // CLI11 reads a number that begins with 0 as octal
    return std::string();
  };
}

ValueCheck not_empty() {
  return [](const std::string& value) {
    return value.empty() ? std::string("the value is empty.") : std::string();
  };
}

std::string quoted_value(std::string_view value) {
  constexpr std::size_t most_bytes = 40;
  const bool is_long = value.size() > most_bytes;
  return fmt::format("'{}{}'", to_terminal(std::string(value.substr(0, most_bytes))),
                     is_long ? "…" : "");
}

}  // namespace coldchain::cli
