// SPDX-License-Identifier: MIT
#include <utility>

#include <coldchain/report/json_writer.hpp>

namespace coldchain::report {

JsonWriter& JsonWriter::key(std::string_view name) {
  begin_element();
  out_ += to_json_string(name);
  out_ += ": ";
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::name_member(std::string_view name, std::string_view bytes) {
  member(name, bytes);
  if (!is_valid_utf8(bytes))
    member(std::string(name) + "-hex", to_hex(bytes));
  return *this;
}

std::string JsonWriter::take() {
  return std::exchange(out_, {});
}

JsonWriter& JsonWriter::raw(std::string_view text) {
  begin_element();
  out_ += text;
  return *this;
}

JsonWriter& JsonWriter::open(char bracket) {
  begin_element();
  out_ += bracket;
  has_elements_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  has_elements_.pop_back();
  break_line();
  out_ += bracket;
  return *this;
}

void JsonWriter::begin_element() {
  if (std::exchange(after_key_, false) || has_elements_.empty())
    return;
  if (has_elements_.back())
    out_ += is_one_line_ ? ", " : ",";
  has_elements_.back() = true;
  break_line();
}

void JsonWriter::break_line() {
  if (is_one_line_)
    return;
  out_ += '\n';
  out_.append(4 * has_elements_.size(), ' ');
}

}  // namespace coldchain::report
