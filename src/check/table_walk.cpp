// SPDX-License-Identifier: MIT
#include "table_walk.hpp"

#include <algorithm>

namespace coldchain::check {

void walk_tables(Survey& survey, const TableWalk& walk, const TableVisitor& visit) {
  const std::uint64_t cluster_size = survey.geometry.cluster_size();
  std::vector<be64> table(cluster_size / sizeof(be64));
  std::unordered_set<std::uint64_t> seen;
  std::uint64_t again_bytes = 0;
  WalkedRanges walked;
  for (const Survey::L1Table& l1 : walk.l1_tables) {
    const std::uint64_t skipped = std::min<std::uint64_t>(walk.first_entry, l1.entries);
    (void)survey.for_each_entry(
        {l1.offset + skipped * sizeof(be64)}, (l1.entries - skipped) * sizeof(be64), walked,
        "L1 tables", [](const io::Unread&) {},
        [&](std::uint64_t raw, std::uint64_t i) {
          Reference reference;
          reference.raw = raw;
          reference.l1_index = static_cast<std::uint32_t>(skipped + i);
          reference.is_active = l1.is_active;
          reference.disk_size = l1.disk_size;
          const HostOffset at{reference.l2_table()};
          if (at.value == 0 || at.value >= survey.file_size || !is_aligned(at.value, cluster_size))
            return;
          reference.is_first = seen.insert(at.value).second;
          again_bytes += reference.is_first ? 0 : cluster_size;
          if ((!reference.is_first && again_bytes > walk.most_again_bytes) ||
              survey.is_in_hole(at) || !io::read_table(survey.file, at, writable_bytes_of(table)))
            return;
          visit(reference, table);
        });
  }
}

}  // namespace coldchain::check
