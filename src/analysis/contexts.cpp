// SPDX-License-Identifier: MIT
#include <array>
#include <utility>

#include <coldchain/analysis/contexts.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::analysis {

namespace {

constexpr std::uint32_t hole_bit = 1;
constexpr std::uint32_t zero_bit = 2;
constexpr std::uint32_t local_bit = 4;
constexpr std::uint32_t backing_bit = 8;

constexpr std::array<std::pair<Context, std::string_view>, 3> names = {{
    {Context::base_allocation, "base:allocation"},
    {Context::allocation_depth, "qemu:allocation-depth"},
    {Context::joint_allocation, "qemu:joint-allocation"},
}};

std::uint32_t base_value(const Extent& extent) {
  return (extent.data ? 0 : hole_bit) | (extent.zero ? zero_bit : 0);
}

// 0: no layer has it; 1: the top; 2: its backing file; … What lies past the end of a shorter
// backing file counts as that file's.
std::uint32_t depth_value(const Extent& extent) {
  if (extent.past_end)
    return extent.layer + 2;
  return extent.present ? extent.layer + 1 : 0;
}

std::string joint_description(std::uint32_t value) {
  std::string text;
  if ((value & hole_bit) != 0)
    text += "hole,";
  if ((value & zero_bit) != 0)
    text += "zero,";
  return text + ((value & local_bit) != 0     ? "local"
                 : (value & backing_bit) != 0 ? "backing"
                                              : "absent");
}

}  // namespace

std::string_view to_string(Context context) {
  for (const auto& [candidate, name] : names) {
    if (candidate == context)
      return name;
  }
  return "";
}

std::optional<Context> context_from(std::string_view name) {
  for (const auto& [candidate, text] : names) {
    if (text == name)
      return candidate;
  }
  return std::nullopt;
}

std::uint32_t context_value(Context context, const Extent& extent) {
  if (context == Context::base_allocation)
    return base_value(extent);
  const std::uint32_t depth = depth_value(extent);
  if (context == Context::allocation_depth)
    return depth;
  return base_value(extent) | (depth == 1 ? local_bit : depth > 1 ? backing_bit : 0);
}

std::string context_description(Context context, std::uint32_t value) {
  switch (context) {
    case Context::base_allocation: {
      constexpr std::array<std::string_view, 4> words = {"data", "hole", "zero", "hole,zero"};
      return value < words.size() ? std::string(words[value]) : "";
    }
    case Context::allocation_depth:
      return value == 0 ? "absent" : value == 1 ? "local" : fmt::format("backing depth {}", value);
    case Context::joint_allocation:
      return joint_description(value);
  }
  return "";
}

Result<void> context_extents(const graph::Chain& chain, GuestRange range, Context context,
                             unsigned workers,
                             const std::function<void(const ContextExtent&)>& consumer) {
  std::optional<ContextExtent> pending;
  TRY(map(chain, range, workers, [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents) {
      const std::uint32_t value = context_value(context, extent);
      if (pending && pending->value == value) {
        pending->guest.end = extent.guest.end;
      } else {
        if (pending)
          consumer(*pending);
        pending = ContextExtent{extent.guest, value};
      }
      pending->unreadable.add(std::span(&extent, 1));
    }
    return {};
  }));
  if (pending)
    consumer(*pending);
  return {};
}

}  // namespace coldchain::analysis
