// SPDX-License-Identifier: MIT
#include <algorithm>
#include <limits>

#include <coldchain/analysis/watermark.hpp>

namespace coldchain::analysis {

namespace {

// As large as a number can be, where the sum is larger.
std::uint64_t next_multiple_above(std::uint64_t value, std::uint64_t added, std::uint64_t step) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  if (added > most - value)
    return most;
  const std::uint64_t whole = (value + added) / step;
  return whole >= most / step ? most : (whole + 1) * step;
}

}  // namespace

std::optional<Watermark> watermark_of(const graph::Node& node, const NodeUsage& usage,
                                      const WatermarkRule& rule) {
  const bool is_on_device = node.qcow2_image() != nullptr && node.file &&
                            node.file->status().kind == io::FileKind::block_device;
  if (!is_on_device)
    return std::nullopt;
  const std::uint64_t size = node.file->status().size;
  const bool is_exact = usage.image_end && !usage.image_end->is_lower_bound;
  const std::uint64_t end = usage.image_end ? usage.image_end->offset.value : size;
  Watermark mark;
  mark.free = size - std::min(size, end);
  mark.target = next_multiple_above(end, rule.limit, rule.extent);
  mark.is_short = mark.free < rule.limit || !is_exact;
  return mark;
}

}  // namespace coldchain::analysis
