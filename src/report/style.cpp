// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cassert>

#include <coldchain/base/text.hpp>
#include <coldchain/report/style.hpp>

#include <fmt/format.h>

namespace coldchain::report {

std::string Style::paint(Ink ink, std::string_view text) const {
  if (!color || ink == Ink::plain)
    return std::string(text);
  const char* code = ink == Ink::bold     ? "1"
                     : ink == Ink::dim    ? "2"
                     : ink == Ink::yellow ? "33"
                                          : "31";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

Table::Table(std::vector<std::string> titles, std::vector<Align> aligns)
    : aligns_(std::move(aligns)), rows_{std::move(titles)} {
  assert(rows_.front().size() == aligns_.size());
}

void Table::add(std::vector<std::string> cells) {
  assert(cells.size() == aligns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text(const Style& style) const {
  std::vector<std::size_t> widths(aligns_.size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      line += i == 0 ? "" : "  ";
      line += aligns_[i] == Align::right ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += style.paint(&row == &rows_.front() ? Style::Ink::bold : Style::Ink::plain, line) + "\n";
  }
  return out;
}

}  // namespace coldchain::report
