// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cctype>

#include <coldchain/base/text.hpp>
#include <coldchain/report/header_report.hpp>
#include <coldchain/report/json_writer.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using qcow2::HeaderField;

// Names are read, numbers and flags are not text.
std::string content_text(const std::string& content) {
  constexpr std::size_t most_bytes = 32;
  const bool is_text = std::all_of(content.begin(), content.end(), [](char c) {
    return std::isprint(static_cast<unsigned char>(c)) != 0;
  });
  if (is_text)
    return to_terminal(content);
  return to_hex(content.substr(0, most_bytes)) + (content.size() > most_bytes ? "..." : "");
}

std::string value_text(const HeaderField& field) {
  if (field.is_number)
    return fmt::format("{:#x} ({})", field.value, field.value);
  return field.value == 0 ? content_text(field.content)
                          : fmt::format("{:#x}: {}", field.value, content_text(field.content));
}

}  // namespace

Result<void> write_header_text(const std::vector<HeaderField>& fields, const Style& style,
                               const Sink& sink) {
  using enum Table::Align;
  Table table({"OFFSET", "LENGTH", "FIELD", "VERDICT", "VALUE"}, {right, right, left, left, left});
  for (const HeaderField& field : fields)
    table.add({fmt::format("{:#x}", field.offset), std::to_string(field.length), field.name,
               field.problem.empty() ? "valid" : "invalid", value_text(field)});
  std::string out = table.text(style);
  for (const HeaderField& field : fields) {
    if (!field.problem.empty())
      out += fmt::format("{} at {:#x}: {}\n", field.name, field.offset, to_terminal(field.problem));
  }
  return sink(out);
}

Result<void> write_header_json(const std::string& filename, const std::vector<HeaderField>& fields,
                               const Sink& sink) {
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.header").member("version", 1);
  json.name_member("filename", filename).key("fields").begin_array();
  for (const HeaderField& field : fields) {
    json.begin_object()
        .member("name", field.name)
        .member("offset", field.offset)
        .member("length", field.length);
    if (field.is_number || field.value != 0)
      json.member(field.is_number ? "value" : "type", field.value);
    if (!field.is_number)
      json.name_member("content", field.content);
    json.member("valid", field.problem.empty());
    if (!field.problem.empty())
      json.member("problem", field.problem);
    json.end_object();
  }
  json.end_array().end_object();
  return sink(json.take() + "\n");
}

}  // namespace coldchain::report
