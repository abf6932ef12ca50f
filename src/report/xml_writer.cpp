// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/report/xml_writer.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

bool is_character(char byte) {
  return static_cast<unsigned char>(byte) >= 0x20 || byte == '\t' || byte == '\n' || byte == '\r';
}

}  // namespace

XmlWriter& XmlWriter::open(std::string_view name, Attributes attributes) {
  start(name, attributes);
  out_ += ">\n";
  open_.emplace_back(name);
  return *this;
}

XmlWriter& XmlWriter::close() {
  const std::string name = std::move(open_.back());
  open_.pop_back();
  out_ += fmt::format("{:{}}</{}>\n", "", 2 * open_.size(), name);
  return *this;
}

XmlWriter& XmlWriter::empty(std::string_view name, Attributes attributes) {
  start(name, attributes);
  out_ += "/>\n";
  return *this;
}

XmlWriter& XmlWriter::text(std::string_view name, std::string_view content, Attributes attributes) {
  start(name, attributes);
  out_ += fmt::format(">{}</{}>\n", escaped(content), name);
  return *this;
}

Result<std::string> XmlWriter::take() {
  if (unfit_)
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("XML cannot hold the name '{}'; use --output=json", to_terminal(*unfit_)));
  return std::exchange(out_, {});
}

void XmlWriter::start(std::string_view name, Attributes attributes) {
  out_ += fmt::format("{:{}}<{}", "", 2 * open_.size(), name);
  for (const Attribute& attribute : attributes)
    out_ += fmt::format(" {}='{}'", attribute.name, escaped(attribute.value));
}

std::string XmlWriter::escaped(std::string_view bytes) {
  if (!is_valid_utf8(bytes) || !std::all_of(bytes.begin(), bytes.end(), is_character))
    unfit_ = unfit_.value_or(std::string(bytes));
  std::string text;
  for (const char byte : bytes) {
    switch (byte) {
      case '<':
        text += "&lt;";
        break;
      case '>':
        text += "&gt;";
        break;
      case '&':
        text += "&amp;";
        break;
      case '"':
        text += "&quot;";
        break;
      case '\'':
        text += "&apos;";
        break;
      // As they are, a reader would change them.
      case '\t':
        text += "&#x9;";
        break;
      case '\n':
        text += "&#xA;";
        break;
      case '\r':
        text += "&#xD;";
        break;
      default:
        text += byte;
    }
  }
  return text;
}

}  // namespace coldchain::report
