// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "guest_reads.hpp"
#include "repaired.hpp"

#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using testing::count;
using testing::Damage;
using testing::is_clean;
using testing::Repaired;
using testing::repaired;

TEST_CASE("repair: an L1 entry that names something else gets its table back from the orphans") {
  for (const char* name : {"l1-entry-names-data", "l1-entry-names-refcount-block",
                           "l1-entry-names-the-refcount-table", "l1-entry-names-the-header"}) {
    CAPTURE(name);
    const Damage& damage = testing::damage(name);
    const Repaired result = repaired(damage.image(), {.tier = RepairTier::all});
    CHECK(is_clean(result.repair.after));
    CHECK(count(result.repair, Mending::drop_l2_table) == 1);
    CHECK(count(result.repair, Mending::link_l2_table) == 1);
    for (const Action& action : result.repair.actions)
      CHECK(action.lost.empty());
    const io::MemoryFile sound(damage.sound.build().flat());
    const io::MemoryFile after(result.bytes);
    CHECK(testing::guest_reads(after) == testing::guest_reads(sound));
  }
}

TEST_CASE("repair: where two tables are lost, a wrong L1 entry is dropped and both are told") {
  testing::Patient patient(testing::damage("l1-entry-names-data").image());
  const std::uint64_t first = patient.bytes().size() / patient.cluster_size();
  patient.resize((first + 2) * patient.cluster_size());
  patient.set_refcount(first, 1);
  patient.set_refcount(first + 1, 1);
  patient.set(first * patient.cluster_size(),
              (first + 1) * patient.cluster_size() | qcow2::copied_flag);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
  CHECK(count(result.repair, Mending::drop_l2_table) == 1);
  CHECK(count(result.repair, Mending::link_l2_table) == 0);
  CHECK(result.repair.proposals.size() == 2);
  CHECK(result.repair.kept_clusters != 0);
}

TEST_CASE("repair: a table of zero clusters that guest data claims, too, stays") {
  testing::Patient patient(testing::damage("l1-entry-names-data").sound.build().flat());
  const std::uint64_t table = patient.at(patient.l1_entry(1)) & qcow2::offset_mask;
  for (std::uint64_t at = 0; at < patient.cluster_size(); at += 8)
    patient.set(table + at, at < 64 ? qcow2::zero_flag : 0);
  patient.set(patient.l2_entry(5), table | qcow2::copied_flag);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
  CHECK(count(result.repair, Mending::drop_l2_table) == 0);
}
