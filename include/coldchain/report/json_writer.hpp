// SPDX-License-Identifier: MIT
// JSON documents laid out as QEMU lays them out: four spaces per level, keys in the order in which
// they are written, a line per element. Strings are bytes and are escaped as QEMU escapes them. Or
// in one line, for documents of which each is a line of a stream.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/base/text.hpp>

namespace coldchain::report {

class JsonWriter {
 public:
  enum class Layout { lines, one_line };

  explicit JsonWriter(Layout layout = Layout::lines) : is_one_line_(layout == Layout::one_line) {}

  // Inside an object, values follow a key(); inside an array, they follow each other.
  JsonWriter& key(std::string_view name);
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }

  JsonWriter& value(std::string_view text) { return raw(to_json_string(text)); }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool flag) { return raw(flag ? "true" : "false"); }
  JsonWriter& value(std::integral auto number) { return raw(std::to_string(number)); }

  template <class T>
  JsonWriter& member(std::string_view name, const T& content) {
    return key(name).value(content);
  }

  // A name of arbitrary bytes: where it is not UTF-8, its bytes in hex follow as NAME-hex.
  JsonWriter& name_member(std::string_view name, std::string_view bytes);

  // The text since the last take(). Open objects and arrays stay open.
  [[nodiscard]] std::string take();
  [[nodiscard]] std::size_t size() const { return out_.size(); }

 private:
  JsonWriter& raw(std::string_view text);
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  void begin_element();
  void break_line();  // and indent

  bool is_one_line_;
  std::string out_;
  std::vector<bool> has_elements_;  // per open object or array
  bool after_key_ = false;
};

}  // namespace coldchain::report
