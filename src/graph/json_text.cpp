// SPDX-License-Identifier: MIT
#include "json_text.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <coldchain/base/try.hpp>

namespace coldchain::graph {

namespace {

using nlohmann::json;

constexpr std::size_t max_json_bytes = 1U << 16;
constexpr int max_brackets = 256;

Error not_json(const char* reason) {
  return {ErrorCode::invalid_argument,
          std::string("Could not parse the JSON options: JSON parse error, ") + reason, 0};
}

// The same text with every string in double quotes. QEMU qobject/json-lexer.c: a string begins
// with either quote and ends with the same one; json-parser.c: \' is an escape in both.
std::string with_double_quotes(std::string_view text) {
  std::string standard;
  standard.reserve(text.size());
  char quote = '\0';  // of the string that `c` is in
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == '\0' && (c == '"' || c == '\'')) {
      quote = c;
      standard += '"';
    } else if (quote == '\0') {
      standard += c;
    } else if (c == quote) {
      quote = '\0';
      standard += '"';
    } else if (c == '\\' && i + 1 < text.size()) {
      const char escaped = text[++i];
      if (escaped != '\'')
        standard += c;
      standard += escaped;
    } else {
      if (c == '"')
        standard += '\\';
      standard += c;
    }
  }
  return standard;
}

// Notes names that one object has twice, and strings that no file name can be: the system would
// read a path only up to its first NUL.
class Inspector {
 public:
  bool operator()(int, json::parse_event_t event, const json& parsed) {
    if (event == json::parse_event_t::object_start) {
      names_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      names_.pop_back();
    } else if (event == json::parse_event_t::key) {
      has_duplicate_ |= !names_.back().insert(parsed.get<std::string>()).second;
    } else if (parsed.is_string()) {
      has_nul_ |= parsed.get_ref<const std::string&>().find('\0') != std::string::npos;
    }
    return true;
  }

  [[nodiscard]] bool has_duplicate() const { return has_duplicate_; }
  [[nodiscard]] bool has_nul() const { return has_nul_; }

 private:
  std::vector<std::set<std::string>> names_;
  bool has_duplicate_ = false;
  bool has_nul_ = false;
};

}  // namespace

Result<json> parse_json_text(std::string_view text) {
  if (text.size() > max_json_bytes)
    return fail(ErrorCode::too_large, "json: name of more than 64 KiB");
  // The parser recurses: bound the nesting before it sees the text.
  const auto is_bracket = [](char c) { return c == '{' || c == '['; };
  if (std::count_if(text.begin(), text.end(), is_bracket) > max_brackets)
    return fail(not_json("nested too deeply"));
  // The library skips a byte order mark, QEMU does not.
  if (text.starts_with("\xEF\xBB\xBF"))
    return fail(not_json("a byte order mark is no JSON"));
  Inspector inspector;
  json parsed = json::parse(with_double_quotes(text), std::ref(inspector), false);
  if (parsed.is_discarded())
    return fail(not_json("this is not one JSON value"));
  if (inspector.has_duplicate())
    return fail(not_json("duplicate key"));
  if (inspector.has_nul())
    return fail(not_json("a string has a NUL byte in it"));
  if (!parsed.is_object())
    return fail(ErrorCode::invalid_argument, "Invalid JSON object given");
  return parsed;
}

}  // namespace coldchain::graph
