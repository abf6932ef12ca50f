// SPDX-License-Identifier: MIT
// Whatever can be checked can be repaired or is refused; after a repair nothing is left that a
// second one would change, and there is no damage that was not there before.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/ops/repair.hpp>

using namespace coldchain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const io::MemoryFile file(fuzz::to_bytes(data, size));
  const bool frees = size % 2 == 0;
  for (const ops::RepairTier tier : {ops::RepairTier::leaks, ops::RepairTier::all}) {
    ops::RepairOptions options{
        .tier = tier, .free_orphans = frees, .rebuild_mapping = size % 3 == 0};
    edit::Transaction first(file);
    const auto repair = ops::plan_repair(first, nullptr, options);
    if (!repair)
      continue;
    if (repair->after.counts.corruptions > repair->before.counts.corruptions)
      std::abort();
    // Of a file that became very long, one pass is enough.
    if (first.size_after() > (1U << 26))
      continue;
    options.keep_unreferenced = repair->kept_clusters != 0;
    edit::Transaction second(first.view());
    const auto again = ops::plan_repair(second, nullptr, options);
    if (!again || !again->actions.empty() || !second.is_empty())
      std::abort();
  }
  return 0;
}
