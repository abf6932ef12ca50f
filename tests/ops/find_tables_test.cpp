// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "repaired.hpp"

#include <algorithm>

#include <coldchain/qcow2/snapshots.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace coldchain;
using namespace coldchain::ops;
using testing::count;
using testing::Damage;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::is_clean;
using testing::Repaired;
using testing::repaired;

TEST_CASE("repair: --rebuild-mapping does not link a table that names free clusters, or tables") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 4 << 20;  // two L2 tables, of which one is never written
  ImageBuilder builder(options);
  builder.data(0, 'd');
  const testing::Patient sound(builder.build().flat());
  const std::uint64_t size = sound.cluster_size();
  const std::uint64_t first = sound.bytes().size() / size;
  // A counted cluster that nothing refers to, and that names the next one.
  const auto image = [&](bool is_counted, bool is_table) {
    testing::Patient patient(sound.bytes());
    patient.resize((first + 2) * size);
    patient.set_refcount(first, 1);
    patient.set(first * size, (first + 1) * size | qcow2::copied_flag);
    patient.set_refcount(first + 1, is_counted ? 1 : 0);
    if (is_table)
      patient.set((first + 1) * size, patient.host_cluster(0) * size | qcow2::copied_flag);
    return patient.bytes();
  };
  const auto links = [](const Bytes& bytes) {
    const RepairOptions rebuild{.tier = RepairTier::all, .rebuild_mapping = true};
    return count(repaired(bytes, rebuild).repair, Mending::link_l2_table);
  };
  CHECK(links(image(true, false)) == 1);
  CHECK(links(image(false, false)) == 0);
  CHECK(links(image(true, true)) == 0);
}

TEST_CASE("repair: --rebuild-mapping finds the one lost L2 table, and the guest reads all again") {
  const Damage& zeroed = testing::damage("l1-entry-zeroed");
  // Only one entry may be without a table for its place to be certain.
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 2 << 20;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 300; ++cluster)
    builder.data(cluster, static_cast<std::uint8_t>(cluster % 250 + 1));
  const Bytes sound = builder.build().flat();
  testing::Patient patient(sound);
  patient.set(patient.l1_entry(), 0);
  const Repaired result =
      repaired(patient.bytes(), {.tier = RepairTier::all, .rebuild_mapping = true});
  CHECK(is_clean(result.repair.after));
  CHECK(count(result.repair, Mending::link_l2_table) == 1);
  CHECK(result.bytes == sound);
  // With more empty entries than tables it is proposed, not done.
  const Repaired unclear =
      repaired(zeroed.image(), {.tier = RepairTier::all, .rebuild_mapping = true});
  CHECK(
      (unclear.repair.proposals.size() == 1 || count(unclear.repair, Mending::link_l2_table) == 1));
}

TEST_CASE("repair: a lost table that is damaged itself, or has lost its refcount, is still known") {
  const testing::Patient sound(testing::damage("l1-entry-zeroed").sound.build().flat());
  const std::uint64_t table = sound.at(sound.l1_entry()) & qcow2::offset_mask;
  testing::Patient damaged_table(testing::damage("l1-entry-zeroed").image());
  damaged_table.set(table, damaged_table.at(table) | 1ULL << 57);
  testing::Patient uncounted_table(testing::damage("l1-entry-zeroed").image());
  uncounted_table.set_refcount(table / uncounted_table.cluster_size(), 0);
  for (const testing::Patient& patient : {damaged_table, uncounted_table}) {
    const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::leaks});
    CHECK(count(result.repair, Mending::free_cluster) == 0);
    CHECK(result.repair.kept_clusters > 10);
  }
}

TEST_CASE("repair: two lost tables are told, not placed by their order in the file") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 4 << 20;
  ImageBuilder builder(options);
  builder.data(700, 'b').data(3, 'a');
  testing::Patient patient(builder.build().flat());
  patient.set(patient.l1_entry(0), 0);
  patient.set(patient.l1_entry(1), 0);
  const Repaired result =
      repaired(patient.bytes(), {.tier = RepairTier::all, .rebuild_mapping = true});
  CHECK(count(result.repair, Mending::link_l2_table) == 0);
  CHECK(result.repair.proposals.size() == 2);
}

TEST_CASE("repair: of an image with a data file, a lost table is told, but not linked unasked") {
  ImageOptions options;
  options.size = 64 << 20;
  options.data_file = "data";
  testing::Patient patient(ImageBuilder(options).data(0, 'd').data(3, 'e').build().flat());
  const std::uint64_t table = patient.at(patient.l1_entry()) & qcow2::offset_mask;
  patient.set(patient.l1_entry(), 0);
  RepairOptions rebuild{.tier = RepairTier::all, .rebuild_mapping = true};
  const Repaired told = repaired(patient.bytes(), rebuild);
  CHECK(count(told.repair, Mending::link_l2_table) == 0);
  CHECK(told.repair.proposals.size() == 1);
  rebuild.links = {{.table = HostOffset{table}, .l1_index = 0}};
  CHECK(count(repaired(patient.bytes(), rebuild).repair, Mending::link_l2_table) == 1);
}

TEST_CASE("repair: the L1 table of a lost snapshot is reported, and never linked as an L2 table") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 4 << 20;  // two L2 tables, of which one is never written
  // The snapshot's own L2 table may name nothing: zero clusters alone.
  for (const bool names_clusters : {true, false}) {
    ImageBuilder builder(options);
    if (names_clusters)
      builder.data(0, 'd');
    builder.zero(1).snapshot("1", "s").data(2, 'n');
    testing::Patient patient(builder.build().flat());
    const std::uint64_t l1 = [&] {
      const io::MemoryFile file(patient.bytes());
      return qcow2::read_snapshots(file, patient.header()).value().front().l1_table_offset;
    }();
    patient.set_header([](qcow2::Header& header) {
      header.nb_snapshots = 0;
      header.snapshots_offset = 0;
    });
    RepairOptions rebuild{.tier = RepairTier::all, .rebuild_mapping = true};
    const Repaired result = repaired(patient.bytes(), rebuild);
    CAPTURE(names_clusters);
    CHECK(count(result.repair, Mending::link_l2_table) == 0);
    const auto& proposals = result.repair.proposals;
    CHECK(std::any_of(proposals.begin(), proposals.end(), [&](const std::string& text) {
      return text.find(fmt::format("the table at {:#x} is an L1 table", l1)) != std::string::npos;
    }));
    rebuild.links = {{.table = HostOffset{l1}, .l1_index = 1}};
    const io::MemoryFile file(patient.bytes());
    edit::Transaction transaction(file);
    CHECK_FALSE(plan_repair(transaction, nullptr, rebuild));
  }
}

TEST_CASE("repair: over a backing file, an empty L1 entry is no evidence for a lost table") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 2 << 20;
  options.backing_file = "base";
  options.backing_format = "raw";
  testing::Patient patient(ImageBuilder(options).data(0, 'd').build().flat());
  patient.set(patient.l1_entry(), 0);
  const Repaired result =
      repaired(patient.bytes(), {.tier = RepairTier::all, .rebuild_mapping = true});
  CHECK(count(result.repair, Mending::link_l2_table) == 0);
  CHECK(result.repair.proposals.size() == 1);
}
