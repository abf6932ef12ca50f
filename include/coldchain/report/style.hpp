// SPDX-License-Identifier: MIT
// How text for people may look: decided by the caller, never by looking at a terminal here.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace coldchain::report {

struct Style {
  bool color = false;
  bool utf8 = false;  // lines and marks beyond ASCII

  enum class Ink { plain, bold, dim, yellow, red };
  [[nodiscard]] std::string paint(Ink ink, std::string_view text) const;
};

// Columns as wide as their widest cell; two spaces between them, nothing at the end of a line.
class Table {
 public:
  enum class Align { left, right };

  Table(std::vector<std::string> titles, std::vector<Align> aligns);
  void add(std::vector<std::string> cells);  // as many as there are titles
  [[nodiscard]] std::string text(const Style& style) const;

 private:
  std::vector<Align> aligns_;
  std::vector<std::vector<std::string>> rows_;  // the first are the titles
};

}  // namespace coldchain::report
