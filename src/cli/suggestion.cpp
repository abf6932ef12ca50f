// SPDX-License-Identifier: MIT
#include "suggestion.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

constexpr std::size_t longest_word = 64;

// How many letters must be put in, left out or replaced; two that are exchanged count as one.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before;
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(above.begin(), above.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = above;
    above = row;
  }
  return above.back();
}

}  // namespace

std::string did_you_mean(std::string_view typed, const std::vector<std::string>& words) {
  if (typed.size() > longest_word)
    return "";
  std::string_view nearest;
  std::size_t least = std::min<std::size_t>(3, typed.size() / 2 + 1);  // more is another word
  for (const std::string& word : words) {
    if (const std::size_t found = distance(typed, word); found < least) {
      least = found;
      nearest = word;
    }
  }
  return nearest.empty() ? "" : fmt::format(" Did you mean '{}'?", nearest);
}

}  // namespace coldchain::cli
