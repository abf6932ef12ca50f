// SPDX-License-Identifier: MIT
// XML laid out and escaped as libvirt does it: two spaces per level, attributes in single quotes.
// Bytes that XML 1.0 cannot hold (invalid UTF-8, control characters) are an error, never dropped.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <coldchain/base/result.hpp>

namespace coldchain::report {

class XmlWriter {
 public:
  struct Attribute {
    std::string_view name;
    std::string value;
  };
  using Attributes = std::initializer_list<Attribute>;

  XmlWriter& open(std::string_view name, Attributes attributes = {});
  XmlWriter& close();
  XmlWriter& empty(std::string_view name, Attributes attributes = {});
  XmlWriter& text(std::string_view name, std::string_view content, Attributes attributes = {});

  // The document. Error: invalid_argument, which names the first text that XML cannot hold.
  [[nodiscard]] Result<std::string> take();

 private:
  void start(std::string_view name, Attributes attributes);
  [[nodiscard]] std::string escaped(std::string_view bytes);

  std::string out_;
  std::vector<std::string> open_;  // names
  std::optional<std::string> unfit_;
};

}  // namespace coldchain::report
