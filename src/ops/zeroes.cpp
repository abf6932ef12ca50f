// SPDX-License-Identifier: MIT
#include "zeroes.hpp"

#include "extents.hpp"

#include <algorithm>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

using analysis::Extent;

constexpr std::uint64_t most_read_bytes = 4ULL << 20;

}  // namespace

Result<std::vector<GuestRange>> find_zeroes(const graph::Chain& chain, const ZeroSearch& search) {
  std::vector<GuestRange> zeroes;
  Bytes bytes;
  graph::Reader reader(chain);
  ExtentBudget budget(chain);
  const auto look_at = [&](GuestRange some) -> Result<void> {
    TRY(budget.spend_data(some.size()));
    bytes.resize(some.size());
    TRY(reader.read(some.begin, bytes));
    for (GuestRange grain = some; grain.begin < some.end; grain.begin = grain.end) {
      grain.end = std::min(some.end, {align_down(grain.begin.value, search.grain) + search.grain});
      if (is_zero(ByteView(bytes).subspan(grain.begin - some.begin, grain.size())))
        append_range(zeroes, grain);
    }
    return {};
  };
  const auto take = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents) {
      const bool is_read = extent.layer >= search.first_layer && extent.layer < search.end_layer;
      if (!is_read || reads_as_zeros(extent) || extent.is_lost())
        continue;
      for (GuestRange some = extent.guest; some.begin < extent.guest.end; some.begin = some.end) {
        some.end = std::min(extent.guest.end, {align_down(some.begin.value, search.grain) +
                                               std::max(most_read_bytes, search.grain)});
        TRY(look_at(some));
      }
    }
    return {};
  };
  TRY(map_within(budget, chain, search.range, search.workers, take));
  return zeroes;
}

Result<void> map_with_zeroes(const graph::Chain& chain, GuestRange range,
                             const std::vector<GuestRange>& zeroes, unsigned workers,
                             const analysis::ExtentConsumer& consumer) {
  auto zero = zeroes.begin();
  std::vector<Extent> parts;
  const auto take = [&](std::span<const Extent> extents) -> Result<void> {
    parts.clear();
    for (const Extent& extent : extents) {
      for (GuestRange rest = extent.guest; !rest.empty(); rest.begin = parts.back().guest.end) {
        while (zero != zeroes.end() && zero->end <= rest.begin)
          ++zero;
        const bool is_zero = zero != zeroes.end() && zero->begin <= rest.begin;
        const GuestOffset seam = zero == zeroes.end() ? rest.end
                                 : is_zero            ? zero->end
                                                      : zero->begin;
        parts.push_back(clip(extent, {rest.begin, std::min(rest.end, seam)}));
        parts.back().zero = parts.back().zero || is_zero;
      }
    }
    return consumer(parts);
  };
  ExtentBudget budget(chain);
  return map_within(budget, chain, range, workers, take);
}

}  // namespace coldchain::ops
