// SPDX-License-Identifier: MIT
#include "sizes.hpp"

#include "option_values.hpp"

#include <charconv>
#include <limits>
#include <optional>

#include <coldchain/base/checked.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

std::optional<unsigned> suffix_shift(std::string_view suffix) {
  if (suffix.empty())
    return 0;
  if (suffix.size() > 1)
    return std::nullopt;
  constexpr std::string_view letters = "bkmgtpe";
  const char lower = static_cast<char>(suffix[0] | 0x20);
  const std::size_t place = letters.find(lower);
  if (place == std::string_view::npos)
    return std::nullopt;
  return static_cast<unsigned>(place * 10);
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view what, std::string_view text) {
  const auto refuse = [&] {
    return fail(ErrorCode::invalid_argument,
                fmt::format("Invalid {} {}: a number of bytes, which may have a suffix k, M, G, T, "
                            "P or E",
                            what, quoted_value(text)));
  };
  const char* const end = text.data() + text.size();
  std::uint64_t whole = 0;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    const auto [hex_end, hex_error] = std::from_chars(text.data() + 2, end, whole, 16);
    if (hex_error != std::errc{} || hex_end != end || whole > largest)
      return refuse();
    return whole;
  }
  const auto [after, error] = std::from_chars(text.data(), end, whole);
  if (error != std::errc{})
    return refuse();
  double fraction = 0;
  const char* suffix = after;
  if (after != end && *after == '.') {
    const auto [fraction_end, fraction_error] =
        std::from_chars(after, end, fraction, std::chars_format::fixed);
    if (fraction_error != std::errc{})
      return refuse();
    suffix = fraction_end;
  }
  const auto shift = suffix_shift({suffix, static_cast<std::size_t>(end - suffix)});
  if (!shift || (fraction != 0 && *shift == 0))
    return refuse();
  const auto bytes = checked_mul(whole, 1ULL << *shift);
  const auto extra = static_cast<std::uint64_t>(fraction * static_cast<double>(1ULL << *shift));
  const auto sum = bytes ? checked_add(*bytes, extra) : std::nullopt;
  if (!sum || *sum > largest)
    return refuse();
  return *sum;
}

}  // namespace coldchain::cli
