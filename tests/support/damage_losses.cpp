// SPDX-License-Identifier: MIT
#include "damage_losses.hpp"

#include "damage_samples.hpp"

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::testing {

namespace {

using finding::Code;
using qcow2::copied_flag;

// Several sectors of its first L2 table are in use, and its second L2 table.
ImageBuilder long_run() {
  ImageBuilder builder(small_clusters());
  for (std::uint64_t cluster = 0; cluster < 200; ++cluster)
    builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
  for (std::uint64_t cluster = 512; cluster < 520; ++cluster)
    builder.data(cluster, 'z');
  return builder;
}

// The second L1 entry names `offset`.
std::function<void(Patient&)> second_entry(std::function<std::uint64_t(const Patient&)> offset) {
  return [offset](Patient& p) { p.set(p.l1_entry(1), offset(p) | copied_flag); };
}

void wipe(Patient& p, std::uint64_t begin, std::uint64_t bytes) {
  for (std::uint64_t at = begin; at < begin + bytes; at += 8)
    p.set(at, 0);
}

}  // namespace

std::vector<Damage> loss_damages() {
  const ImageBuilder sound = long_run();
  return {
      {"l2-table-sector-wiped",
       sound,
       [](Patient& p) { wipe(p, p.l2_entry(64), 512); },
       {Code::l2_table_part_empty, Code::cluster_leaked}},
      {"l1-entry-names-data",
       sound,
       second_entry([](const Patient& p) { return p.host_cluster(5) * p.cluster_size(); }),
       {Code::data_in_metadata, Code::orphan_table}},
      {"l1-entry-names-refcount-block",
       sound,
       second_entry([](const Patient& p) { return p.at(p.refcount_table_entry()); }),
       {Code::structures_overlap, Code::orphan_table}},
      {"l1-entry-names-the-refcount-table",
       sound,
       second_entry([](const Patient& p) { return p.header().refcount_table_offset; }),
       {Code::structures_overlap, Code::orphan_table}},
      {"l1-entry-names-the-header",
       sound,
       second_entry([](const Patient&) { return 0; }),
       {Code::structures_overlap, Code::orphan_table}},
      {"disk-size-too-small",
       sound,
       [](Patient& p) { p.set_header([](qcow2::Header& h) { h.size = 1 << 20; }); },
       {Code::mapped_past_disk}},
      {"snapshot-deletion-interrupted",
       with_snapshot(),
       [](Patient& p) {
         p.set_header([](qcow2::Header& h) {
           h.nb_snapshots = 0;
           h.snapshots_offset = 0;
         });
       },
       {Code::lost_snapshot, Code::cluster_leaked}},
  };
}

}  // namespace coldchain::testing
