// SPDX-License-Identifier: MIT
// Guest reads agree with the map: what it calls zero reads as zeros. Also through snapshots.
#include "fuzz_files.hpp"

#include <algorithm>
#include <cstdlib>

#include <coldchain/analysis/map.hpp>

namespace {

using namespace coldchain;

void read_all(const graph::Node& top, const graph::ChainOptions& options) {
  const auto chain = graph::Chain::make(top, options);
  if (!chain)
    return;
  constexpr std::uint64_t most = 1 << 20;
  const GuestRange range{{0}, {std::min(most, chain->guest_size())}};
  (void)analysis::map(
      *chain, range, 1, [&](std::span<const analysis::Extent> extents) -> Result<void> {
        for (const analysis::Extent& extent : extents) {
          Bytes content(extent.guest.size());
          const Result<void> done = chain->read(extent.guest.begin, content);
          if (done && extent.zero && !extent.data && content != Bytes(content.size()))
            std::abort();
        }
        return {};
      });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const testing::MemoryFiles files = fuzz::files_with(fuzz::to_bytes(data, size));
  const auto top = graph::open(files, {}, fuzz::request_for_top());
  if (!top)
    return 0;
  read_all(**top, {});
  read_all(**top, {.snapshot = "1", .layer = {}});
  return 0;
}
