// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::qcow2 {

bool repeats_itself(std::vector<std::uint64_t> offsets) {
  // A damaged table may name a cluster twice; a hostile one does so without end.
  constexpr std::size_t most_per_cluster = 16;
  const std::size_t named = offsets.size();
  std::sort(offsets.begin(), offsets.end());
  const auto distinct =
      static_cast<std::size_t>(std::unique(offsets.begin(), offsets.end()) - offsets.begin());
  return named > most_per_cluster * distinct;
}

}  // namespace coldchain::qcow2
