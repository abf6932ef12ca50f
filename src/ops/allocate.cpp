// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <charconv>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/allocate.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

constexpr std::array all_places = {Places::thin, Places::reserve, Places::zero_fill};

// Takes `word` from the front of `text`, where it is there.
bool skip(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word))
    return false;
  text.remove_prefix(word.size());
  return true;
}

std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc())
    return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

}  // namespace

std::string_view to_string(Places places) {
  switch (places) {
    case Places::thin:
      return "thin";
    case Places::reserve:
      return "reserve";
    case Places::zero_fill:
      return "zero-fill";
  }
  return "";
}

std::string to_command(const Allocation& allocation) {
  std::string command = fmt::format("allocate --{}", to_string(allocation.places));
  if (allocation.range)
    command +=
        fmt::format(" --range {}:{}", allocation.range->begin.value, allocation.range->size());
  return command;
}

std::optional<Allocation> parse_allocation(std::string_view command) {
  Allocation allocation;
  if (!skip(command, "allocate --"))
    return std::nullopt;
  const auto places = std::find_if(all_places.begin(), all_places.end(),
                                   [&](Places some) { return skip(command, to_string(some)); });
  if (places == all_places.end())
    return std::nullopt;
  allocation.places = *places;
  if (command.empty())
    return allocation;
  if (!skip(command, " --range "))
    return std::nullopt;
  const auto offset = take_number(command);
  const bool has_length = skip(command, ":");
  const auto length = take_number(command);
  if (!offset || !has_length || !length || !command.empty() || !checked_add(*offset, *length))
    return std::nullopt;
  allocation.range = {{*offset}, {*offset + *length}};
  return allocation;
}

Result<GuestRange> whole_clusters(const Allocation& allocation, std::uint64_t cluster_size,
                                  std::uint64_t disk_size) {
  if (!allocation.range)
    return GuestRange{{0}, {disk_size}};
  const GuestRange& range = *allocation.range;
  if (range.empty() || range.end.value > disk_size)
    return fail(ErrorCode::invalid_argument,
                fmt::format("the range {}:{} is not within the disk of {} bytes", range.begin.value,
                            range.size(), disk_size));
  return GuestRange{{align_down(range.begin.value, cluster_size)},
                    {std::min(align_up(range.end.value, cluster_size), disk_size)}};
}

}  // namespace coldchain::ops
