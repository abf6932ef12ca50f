// SPDX-License-Identifier: MIT
// Whatever opens has a map that covers its disk without gaps, the same with one worker and with
// two.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/analysis/image_info.hpp>
#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/usage.hpp>

namespace {

using namespace coldchain;

// How many extents there are, or nothing where a table cannot be read.
std::optional<std::size_t> count_extents(const graph::Chain& chain, unsigned workers) {
  std::size_t count = 0;
  std::uint64_t position = 0;
  const Result<void> done =
      analysis::map(chain, {{0}, {chain.guest_size()}}, workers,
                    [&](std::span<const analysis::Extent> extents) -> Result<void> {
                      for (const analysis::Extent& extent : extents) {
                        if (extent.guest.begin.value != position || extent.guest.empty())
                          std::abort();
                        position = extent.guest.end.value;
                      }
                      count += extents.size();
                      return {};
                    });
  if (!done)
    return std::nullopt;
  if (position != chain.guest_size())
    std::abort();
  return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const testing::MemoryFiles files = fuzz::files_with(fuzz::to_bytes(data, size));
  const auto top = graph::open(files, {}, fuzz::request_for_top());
  if (!top)
    return 0;
  (void)analysis::image_info(**top);
  (void)analysis::usage_of(**top);
  const auto chain = graph::Chain::make(**top);
  if (!chain)
    return 0;
  if (count_extents(*chain, 1) != count_extents(*chain, 2))
    std::abort();
  return 0;
}
