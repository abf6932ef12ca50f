// SPDX-License-Identifier: MIT
#include "character_width.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain {

namespace {

struct Decoded {
  char32_t code_point = 0;
  std::size_t length = 0;  // bytes consumed, at least 1
  bool valid = false;
};

// One UTF-8 sequence at the start of `bytes` (not empty); overlong forms, surrogates, noncharacters
// and values above U+10FFFF are malformed.
Decoded decode_one(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80)
    return {lead, 1, true};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4)
    return {0, 1, false};
  char32_t code_point = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= bytes.size() || (byte(i) & 0xc0) != 0x80)
      return {0, i, false};
    code_point = code_point << 6 | (byte(i) & 0x3fU);
  }
  constexpr std::array<char32_t, 5> smallest = {0, 0, 0x80, 0x800, 0x10000};
  const bool nonchar =
      (code_point >= 0xfdd0 && code_point <= 0xfdef) || (code_point & 0xfffe) == 0xfffe;
  const bool valid = code_point >= smallest[length] && code_point <= 0x10ffff && !nonchar &&
                     (code_point < 0xd800 || code_point > 0xdfff);
  return {code_point, length, valid};
}

// QEMU util/unicode.c: a lead byte takes all the continuation bytes that it asks for, up to five;
// then the whole is judged. C0 80 is an accepted way to write NUL.
Decoded decode_as_qemu(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (byte(0) < 0xc0 || byte(0) >= 0xfe)
    return decode_one(bytes);
  const auto wanted = static_cast<std::size_t>(std::countl_one(byte(0)));
  std::size_t length = 1;
  while (length < wanted && length < bytes.size() && (byte(length) & 0xc0) == 0x80)
    ++length;
  if (length == wanted && bytes.substr(0, 2) == "\xc0\x80")
    return {0, 2, true};
  const Decoded strict = decode_one(bytes.substr(0, length));
  return {strict.code_point, length, strict.valid && strict.length == length};
}

void append_json_unit(std::string& out, char32_t unit) {
  out += fmt::format("\\u{:04X}", static_cast<unsigned>(unit));
}

void append_json_character(std::string& out, char32_t code_point) {
  switch (code_point) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\b':
      out += "\\b";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  if (code_point > 0xffff) {
    append_json_unit(out, 0xd800 + ((code_point - 0x10000) >> 10));
    append_json_unit(out, 0xdc00 + ((code_point - 0x10000) & 0x3ff));
  } else if (code_point < 0x20 || code_point >= 0x7f) {
    append_json_unit(out, code_point);
  } else {
    out += static_cast<char>(code_point);
  }
}

// C0 and C1 controls, and the marks that reverse or hide text: none may reach a terminal.
bool is_unsafe_on_terminal(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

}  // namespace

std::string to_json_string(std::string_view bytes) {
  std::string out = "\"";
  while (!bytes.empty()) {
    const Decoded decoded = decode_as_qemu(bytes);
    append_json_character(out, decoded.valid ? decoded.code_point : U'\ufffd');
    bytes.remove_prefix(decoded.length);
  }
  out += '"';
  return out;
}

std::string to_terminal(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const Decoded decoded = decode_one(bytes);
    if (decoded.valid && !is_unsafe_on_terminal(decoded.code_point)) {
      out += bytes.substr(0, decoded.length);
    } else {
      for (const char c : bytes.substr(0, decoded.length))
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    bytes.remove_prefix(decoded.length);
  }
  return out;
}

std::string to_terminal_lines(std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t end = text.find('\n');
    out += to_terminal(text.substr(0, end));
    if (end == std::string_view::npos)
      return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

std::string to_shell_word(std::string_view bytes) {
  constexpr std::string_view harmless = "+,-./:=@_%^";
  const auto is_harmless = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           harmless.find(c) != std::string_view::npos;
  };
  if (!bytes.empty() && std::all_of(bytes.begin(), bytes.end(), is_harmless))
    return std::string(bytes);
  const bool is_plain = to_terminal(bytes) == bytes;
  std::string word = is_plain ? "'" : "$'";
  for (const char c : bytes) {
    if (is_plain)
      word += c == '\'' ? std::string("'\\''") : std::string(1, c);
    else if (c == '\'' || c == '\\')
      word += {'\\', c};
    else if (c >= ' ' && c <= '~')
      word += c;
    else
      word += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return word + "'";
}

bool is_valid_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const Decoded decoded = decode_one(bytes);
    if (!decoded.valid)
      return false;
    bytes.remove_prefix(decoded.length);
  }
  return true;
}

std::string to_hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

std::size_t display_width(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const Decoded decoded = decode_one(text);
    columns += character_width(decoded.code_point);
    text.remove_prefix(decoded.length);
  }
  return columns;
}

std::string human_size(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // The largest unit that keeps three digits in front of it: 1000 KiB is already 0.977 MiB.
  int exponent = 0;
  (void)std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const auto unit = static_cast<std::size_t>(std::max(exponent - 1, 0) / 10);
  const double scaled = static_cast<double>(bytes) / static_cast<double>(1ULL << (unit * 10));
  return fmt::format("{:.3g} {}", scaled, units.at(unit));
}

}  // namespace coldchain
