// SPDX-License-Identifier: MIT
// Refcounts, and what is freed or kept. Copied flags follow them.
#include "damage.hpp"
#include "repaired.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <filesystem>

#include <coldchain/io/open.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using testing::count;
using testing::Damage;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::is_clean;
using testing::Repaired;
using testing::repaired;

TEST_CASE("repair: leaks frees what nothing refers to, and touches nothing else") {
  const Repaired result =
      repaired(testing::damage("leaked-cluster").image(), {.tier = RepairTier::leaks});
  CHECK(is_clean(result.repair.after));
  CHECK(count(result.repair, Mending::free_cluster) == 1);
  const Repaired low =
      repaired(testing::damage("refcount-zero").image(), {.tier = RepairTier::leaks});
  CHECK(low.repair.actions.empty());
}

TEST_CASE("repair: leaks sets the copied flag of what it leaves with one reference") {
  testing::Patient patient(testing::damage("refcount-two").sound.build().flat());
  patient.set_refcount(patient.host_cluster(3), 2);
  patient.set(patient.l2_entry(3), patient.at(patient.l2_entry(3)) & ~qcow2::copied_flag);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::leaks});
  CHECK(is_clean(result.repair.after));
  CHECK(count(result.repair, Mending::set_copied_flag) == 1);
}

TEST_CASE("repair: clusters that a lost table names keep their refcount in either tier") {
  const Bytes image = testing::damage("l1-entry-zeroed").image();
  for (const RepairTier tier : {RepairTier::leaks, RepairTier::all}) {
    const Repaired result = repaired(image, {.tier = tier});
    CHECK(result.repair.actions.empty());
    CHECK(result.repair.kept_clusters > 10);
    CHECK(result.repair.after.counts.leaks == result.repair.before.counts.leaks);
    const Repaired freed = repaired(image, {.tier = tier, .free_orphans = true});
    CHECK(freed.repair.after.counts.leaks == 0);
  }
}

TEST_CASE("repair: unreferenced clusters keep their refcount where the mapping is damaged") {
  const Repaired result =
      repaired(testing::damage("l2-table-is-junk").image(), {.tier = RepairTier::all});
  CHECK(count(result.repair, Mending::free_cluster) == 0);
  CHECK(result.repair.kept_clusters > 0);
  CHECK(count(result.repair, Mending::read_as_zeros) > 0);
}

TEST_CASE("repair: what leaks beside a sign of a lost reference keeps its refcount") {
  for (const std::string name : {"l2-table-lost", "l2-entry-names-a-free-cluster"}) {
    for (const RepairTier tier : {RepairTier::leaks, RepairTier::all}) {
      CAPTURE(name);
      const Repaired result = repaired(testing::damage(name).image(), {.tier = tier});
      CHECK(count(result.repair, Mending::free_cluster) == 0);
      CHECK(result.repair.kept_clusters > 0);
    }
  }
}

TEST_CASE("repair: a lost table is known whatever its first page has, in images of every kind") {
  ImageOptions plain;
  plain.size = 64 << 20;
  ImageOptions extended = plain;
  extended.extended_l2 = true;
  ImageOptions external = plain;
  external.data_file = "data";
  for (const ImageOptions& options : {plain, extended, external}) {
    CAPTURE(options.extended_l2);
    CAPTURE(options.data_file);
    ImageBuilder builder(options);
    // The entries of the first page read as zeros.
    for (std::uint64_t cluster = 0; cluster < 512; ++cluster) {
      if (options.extended_l2)
        builder.subclusters(cluster, 0, 0xffff'ffff, 0, false);
      else
        builder.zero(cluster);
    }
    for (std::uint64_t cluster = 600; cluster < 620; ++cluster)
      builder.data(cluster, 'd');
    testing::Patient patient(builder.build().flat());
    patient.set(patient.l1_entry(), 0);
    const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::leaks});
    CHECK(count(result.repair, Mending::free_cluster) == 0);
    CHECK(result.repair.kept_clusters >= (options.data_file.empty() ? 21 : 1));
  }
  // In a data file, the first cluster lies at offset 0.
  testing::Patient patient(ImageBuilder(external).data(0, 'd').build().flat());
  patient.set(patient.l1_entry(), 0);
  CHECK(repaired(patient.bytes(), {.tier = RepairTier::leaks}).repair.kept_clusters == 1);
}

TEST_CASE("repair: where the encryption header cannot be found, its clusters are kept") {
  ImageOptions options;
  options.cluster_bits = 12;
  const auto image = [&](std::uint64_t offset, std::uint32_t crypt_method) {
    testing::SparseBytes bytes =
        ImageBuilder(options)
            .data(0, 'a')
            .extension(qcow2::extension::encryption_header,
                       [&] {
                         Bytes pointer;
                         append(pointer, be64(offset));
                         append(pointer, be64(std::uint64_t{4096}));
                         return pointer;
                       }())
            .patch_header([&](qcow2::Header& header) { header.crypt_method = crypt_method; })
            .build();
    testing::Patient patient(bytes.flat());
    const std::uint64_t cluster = patient.bytes().size() / patient.cluster_size();
    patient.resize(patient.bytes().size() + patient.cluster_size());
    patient.set_number(cluster * patient.cluster_size(), 4, 0x4c554b53);  // "LUKS"
    patient.set_refcount(cluster, 1);
    return patient.bytes();
  };
  for (const Bytes& bytes : {image(0x800, 2), image(0x8000, 0)}) {
    const Repaired result = repaired(bytes, {.tier = RepairTier::leaks});
    CHECK(count(result.repair, Mending::free_cluster) == 0);
    CHECK(result.repair.kept_clusters == 1);
  }
}

TEST_CASE("repair: findings that are too many to be kept free nothing") {
  // Every second of 600,000 clusters leaks, a finding each; two entries that name one cluster are
  // told after all of them.
  constexpr std::uint64_t clusters = 600'000;
  ImageOptions options;
  options.size = clusters << 16;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < clusters; ++cluster)
    builder.data_hole(cluster);
  const testing::TempFolder folder;
  builder.build().write_to(folder / "a");
  const auto files = io::system_files({}).value();
  {
    const auto target = testing::open_for_writing(folder / "a");
    const qcow2::Image image = qcow2::Image::open(*target).value();
    const std::vector<be64> l1 = image.active_mapping()->l1();
    const auto entry_of = [&](std::uint64_t cluster) {
      return qcow2::L1Entry(l1[cluster / 8192].get()).l2_table() + cluster % 8192 * 8;
    };
    const auto set = [&](std::uint64_t cluster, std::uint64_t raw) {
      REQUIRE(target->write_at(entry_of(cluster), bytes_of(be64(raw))).has_value());
    };
    for (std::uint64_t cluster = 1; cluster < clusters; cluster += 2)
      set(cluster, 0);
    const auto number_at = [&](HostOffset offset) {
      be64 raw;
      REQUIRE(
          io::read_exactly(*target, offset, std::as_writable_bytes(std::span(&raw, 1)), "number")
              .has_value());
      return raw.get();
    };
    const std::uint64_t shared = number_at(entry_of(0)) & qcow2::offset_mask;
    set(0, shared);
    set(1, shared);
    const HostOffset block{number_at({image.header().refcount_table_offset})};
    REQUIRE(target->write_at(block + (shared >> 16) * 2, bytes_of(be16(2))).has_value());
  }
  const auto file = files->open(folder / "a").value();
  edit::Transaction transaction(*file);
  const Repair repair = plan_repair(transaction, nullptr, {.tier = RepairTier::leaks}).value();
  CHECK(repair.before.findings.omitted() > 0);
  CHECK(count(repair, Mending::free_cluster) == 0);
  CHECK(transaction.is_empty());
}

TEST_CASE("repair: what a wrong refcount block or table seems to own is not taken from its owner") {
  const testing::Patient sound(testing::damage("l1-entry-zeroed").sound.build().flat());
  const std::uint64_t size = sound.cluster_size();
  const std::uint64_t table = sound.at(sound.l1_entry()) & qcow2::offset_mask;
  testing::Patient over_data(sound.bytes());
  over_data.set(over_data.refcount_table_entry(1), over_data.host_cluster(7) * size);
  over_data.set(over_data.l2_entry(7), over_data.at(over_data.l2_entry(7)) | 1ULL << 56);
  testing::Patient over_table(sound.bytes());
  over_table.set(over_table.refcount_table_entry(1), table);
  over_table.set(over_table.l1_entry(), over_table.at(over_table.l1_entry()) | 1ULL << 57);
  testing::Patient over_table_and_past_end(sound.bytes());
  over_table_and_past_end.set(over_table_and_past_end.refcount_table_entry(1), table);
  over_table_and_past_end.set(over_table_and_past_end.l2_entry(40),
                              (1ULL << 40) | qcow2::copied_flag);
  testing::Patient table_over_table(sound.bytes());
  table_over_table.set(table_over_table.l2_entry(7),
                       table_over_table.at(table_over_table.l2_entry(7)) | 1ULL << 56);
  table_over_table.set_header([&](qcow2::Header& header) { header.refcount_table_offset = table; });
  for (const testing::Patient* patient :
       {&over_data, &over_table, &over_table_and_past_end, &table_over_table}) {
    const Repaired result = repaired(patient->bytes());
    CHECK(is_clean(result.repair.after));
    CHECK(count(result.repair, Mending::drop_l2_table) == 0);
    CHECK(count(result.repair, Mending::read_as_zeros) ==
          (patient == &over_table_and_past_end ? 1 : 0));
    const testing::Patient after(result.bytes);
    for (std::uint64_t cluster = 0; cluster < 12; ++cluster)
      CHECK((after.at(after.l2_entry(cluster)) & qcow2::offset_mask) ==
            (sound.at(sound.l2_entry(cluster)) & qcow2::offset_mask));
    const std::uint64_t first = sound.host_cluster(0) * size;
    const std::uint64_t length = (sound.host_cluster(11) + 1) * size - first;
    CHECK(to_string(ByteView(result.bytes).subspan(first, length)) ==
          to_string(ByteView(sound.bytes()).subspan(first, length)));
  }
}

TEST_CASE("repair: references are counted beyond what a refcount can hold") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 1 << 20;
  options.refcount_order = 0;  // one reference is all that a refcount can hold
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 8; ++cluster)
    builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
  const testing::Patient sound(builder.build().flat());
  const auto set_reserved = [](testing::Patient& patient, std::uint64_t cluster) {
    patient.set(patient.l2_entry(cluster), patient.at(patient.l2_entry(cluster)) | 1ULL << 56);
  };
  // A table that cannot be right takes nothing from the data that it seems to lie over.
  testing::Patient beneath(sound.bytes());
  const std::uint64_t data = sound.host_cluster(2);
  beneath.set_header(
      [&](qcow2::Header& header) { header.refcount_table_offset = data * sound.cluster_size(); });
  set_reserved(beneath, 2);
  const Repaired result = repaired(beneath.bytes());
  CHECK(is_clean(result.repair.after));
  CHECK(count(result.repair, Mending::read_as_zeros) == 0);
  const io::MemoryFile file(result.bytes);
  const qcow2::Image image = qcow2::Image::open(file).value();
  check::StoredRefcounts::Cursor cursor;
  CHECK(check::check(image, {}).value().stored.at(data, cursor) == 1);
  // Of two entries that name the same clusters, one after the other, none is made right.
  testing::Patient twice(sound.bytes());
  for (std::uint64_t cluster = 0; cluster < 3; ++cluster) {
    twice.set(twice.l2_entry(4 + cluster), twice.at(twice.l2_entry(cluster)));
    set_reserved(twice, 4 + cluster);
  }
  CHECK(count(repaired(twice.bytes()).repair, Mending::clear_reserved_bits) == 0);
}

namespace {

// What a block device is: nobody knows its holes.
class Device final : public io::File {
 public:
  explicit Device(const Bytes& content) : memory_(content), status_(memory_.status()) {
    status_.kind = io::FileKind::block_device;
  }
  [[nodiscard]] const io::FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    return memory_.read_at(offset, buffer);
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override { return from; }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset /*from*/) const override {
    return HostOffset{status_.size};
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t /*byte*/) const override { return false; }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t /*byte*/) const override { return {}; }

 private:
  io::MemoryFile memory_;
  io::FileStatus status_;
};

Repair repaired_device(Bytes bytes, const RepairOptions& options, Bytes& after) {
  bytes.resize(4 << 20);
  const Device device(bytes);
  edit::Transaction transaction(device);
  Result<Repair> repair = plan_repair(transaction, nullptr, options);
  REQUIRE_MESSAGE(repair.has_value(), repair.error().message);
  after = testing::content(transaction.view());
  return std::move(*repair);
}

}  // namespace

TEST_CASE("repair: of a device, a refcount table is not guessed") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 1 << 20;
  testing::Patient patient(ImageBuilder(options).data(0, 'a').data(900, 'b').build().flat());
  // Data that nothing refers to, far behind.
  Bytes bytes = patient.bytes();
  bytes.resize(3 << 20);
  std::fill(bytes.begin() + (1 << 20), bytes.begin() + (2 << 20), std::byte{'l'});
  testing::Patient damaged(bytes);
  damaged.set_header([](qcow2::Header& header) { header.refcount_table_clusters = 0; });
  Bytes after;
  const Repair left = repaired_device(damaged.bytes(), {.tier = RepairTier::all}, after);
  CHECK(left.obstacle.value_or("").find("--free-orphans") != std::string::npos);
  CHECK(count(left, Mending::new_refcount_table) == 0);
  const Repair given_up =
      repaired_device(damaged.bytes(), {.tier = RepairTier::all, .free_orphans = true}, after);
  CHECK(count(given_up, Mending::new_refcount_table) == 1);
  CHECK(is_clean(given_up.after));
}

TEST_CASE("repair: of a device, what a lost refcount block counted is kept") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 1 << 20;
  testing::Patient sound(ImageBuilder(options).data(0, 'a').build().flat());
  // The second block cannot be read; what it counted lies where nothing else does.
  Bytes bytes = sound.bytes();
  REQUIRE(bytes.size() < 256 * 512);
  bytes.resize(300 * 512);
  std::fill(bytes.begin() + 256 * 512, bytes.end(), std::byte{'l'});
  testing::Patient damaged(bytes);
  damaged.set(damaged.refcount_table_entry(1), 1ULL << 40);
  // A sign that something is lost.
  damaged.set(damaged.l1_entry(3), 1ULL << 41 | qcow2::copied_flag);
  Bytes after;
  const Repair repair = repaired_device(damaged.bytes(), {.tier = RepairTier::all}, after);
  CHECK(repair.kept_clusters >= 44);
  const io::MemoryFile file(after);
  const qcow2::Image image = qcow2::Image::open_damaged(file).value();
  const check::CheckResult checked = check::check(image, {}).value();
  check::StoredRefcounts::Cursor cursor;
  for (std::uint64_t cluster = 256; cluster < 300; ++cluster)
    CHECK(checked.stored.at(cluster, cursor) == 1);
}

TEST_CASE("repair: where refcounts alone are lost, the image is clean afterwards") {
  for (const char* name : {"refcount-block-missing", "all-refcounts-zero"}) {
    CAPTURE(name);
    const Repaired result = repaired(testing::damage(name).image(), {.tier = RepairTier::all});
    CHECK(result.repair.after.findings.worst() < finding::Severity::leak);
    CHECK(result.repair.kept_clusters == 0);
  }
}

TEST_CASE("repair: where refcounts are lost, too, a lost table frees nothing") {
  testing::Patient patient(testing::damage("l2-table-lost").image());
  patient.set(patient.refcount_table_entry(), 0);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
  CHECK(count(result.repair, Mending::new_refcount_block) == 1);
  CHECK(count(result.repair, Mending::free_cluster) == 0);
  CHECK(result.repair.kept_clusters >= 12);
}

TEST_CASE("repair: what lies far behind the end of the file is not in the way of new refcounts") {
  const auto with_snapshot_at = [](std::uint64_t behind) {
    testing::Patient patient(testing::damage("snapshot-forgotten").sound.build().flat());
    patient.set(patient.snapshot_entry(), patient.bytes().size() + behind);
    patient.set_header([](qcow2::Header& header) { header.refcount_table_offset = 1ULL << 40; });
    return patient.bytes();
  };
  const Repaired far = repaired(with_snapshot_at(1 << 20));
  CHECK(count(far.repair, Mending::new_refcount_table) == 1);
  CHECK_FALSE(far.repair.obstacle.has_value());
  // Where the new table and its block would come to lie there, they are left, and it is said why.
  const Repaired near = repaired(with_snapshot_at(4096));
  CHECK(count(near.repair, Mending::new_refcount_table) == 0);
  CHECK(near.repair.obstacle.value_or("").find("snapshot") != std::string::npos);
}

TEST_CASE("repair: a refcount block that nothing can replace stays in effect") {
  testing::Patient patient(testing::damage("snapshot-forgotten").sound.build().flat());
  const std::uint64_t end = patient.bytes().size();
  // A guest's entry names the block; a new one would come to lie where the snapshot points.
  patient.set(patient.snapshot_entry(), end + 4096);
  patient.set(patient.l2_entry(40),
              patient.at(patient.refcount_table_entry()) | qcow2::copied_flag);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
  CHECK(result.repair.obstacle.value_or("").find("snapshot") != std::string::npos);
  CHECK(count(result.repair, Mending::drop_refcount_block) == 0);
  CHECK(count(result.repair, Mending::free_cluster) == 0);
  const testing::Patient after(result.bytes);
  for (std::uint64_t cluster = 0; cluster < end / patient.cluster_size(); ++cluster)
    CHECK(after.refcount(cluster) >= patient.refcount(cluster));
  CHECK(result.bytes.size() == end);
}

TEST_CASE("repair: a refcount block in a last cluster that is cut is written anew") {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 1 << 20;
  testing::Patient patient(ImageBuilder(options).data(0, 'a').build().flat());
  // Move the block to the end of the file, and lose half of it.
  const std::uint64_t end = patient.bytes().size();
  const std::uint64_t block = patient.at(patient.refcount_table_entry());
  patient.set_refcount(end / 4096, 1);
  patient.resize(end + 2048);
  for (std::uint64_t i = 0; i < 2048; i += 8)
    patient.set(end + i, patient.at(block + i));
  patient.set(patient.refcount_table_entry(), end);
  const Repaired result = repaired(patient.bytes());
  CHECK(is_clean(result.repair.after));
  CHECK(count(result.repair, Mending::new_refcount_block) == 1);
}

TEST_CASE("repair: a small file that asks for much metadata is refused, not obeyed") {
  // 8,192 clusters, each in the range of another refcount block: 512 MiB of blocks.
  ImageOptions options;
  options.refcount_order = 6;
  options.size = 8192ULL << 16;
  ImageBuilder builder(options);
  for (std::uint64_t i = 0; i < 8192; ++i)
    builder.raw_entry(i, (i + 1) << 29 | qcow2::copied_flag);
  const testing::TempFolder folder;
  builder.build().write_to(folder / "a");
  std::filesystem::resize_file(folder / "a", 8194ULL << 29);
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  edit::Transaction transaction(*file);
  const Result<Repair> repair = plan_repair(transaction, nullptr, {.tier = RepairTier::all});
  REQUIRE_FALSE(repair.has_value());
  CHECK(repair.error().message.find("no sound image has so much") != std::string::npos);
}

TEST_CASE("repair: what is appended never comes to lie where a reference points") {
  // The file is cut, and a refcount block must be written anew: behind the cut, where entries
  // point.
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 1 << 20;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 64; ++cluster)
    builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
  testing::Patient patient(builder.build().flat());
  const std::uint64_t table = patient.at(patient.l1_entry()) & qcow2::offset_mask;
  REQUIRE(table > patient.host_cluster(63) * patient.cluster_size());
  // Tables come last in these images: move the cut data behind them.
  const std::uint64_t end = patient.bytes().size();
  for (std::uint64_t cluster = 60; cluster < 64; ++cluster)
    patient.set(patient.l2_entry(cluster), (end + (cluster - 60) * 4096) | qcow2::copied_flag);
  patient.set(patient.refcount_table_entry(),
              patient.at(patient.refcount_table_entry()) | 1);  // reserved bit: a new block
  const Repaired result = repaired(patient.bytes());
  CHECK(count(result.repair, Mending::read_as_zeros) == 4);
  CHECK(count(result.repair, Mending::new_refcount_block) == 1);
  std::uint64_t lost = 0;
  for (const Action& action : result.repair.actions)
    lost += action.lost.size();
  CHECK(lost == 4 * 4096);
}

TEST_CASE("repair: an unreadable snapshot table lowers no refcount, whatever is asked for") {
  const Repaired result = repaired(testing::damage("too-many-snapshots").image());
  CHECK(count(result.repair, Mending::free_cluster) == 0);
  CHECK(count(result.repair, Mending::lower_refcount) == 0);
}

TEST_CASE("repair: a cluster that an overwritten entry named before is not freed") {
  for (const std::uint32_t order : {4U, 0U}) {
    CAPTURE(order);
    ImageOptions options;
    options.cluster_bits = 12;
    options.size = 4 << 20;
    options.refcount_order = order;
    ImageBuilder builder(options);
    for (std::uint64_t cluster = 0; cluster < 12; ++cluster)
      builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
    testing::Patient patient(builder.build().flat());
    patient.set(patient.l2_entry(4), patient.at(patient.l2_entry(5)));
    const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
    CHECK(count(result.repair, Mending::free_cluster) == 0);
    CHECK(result.repair.kept_clusters > 0);
  }
}

TEST_CASE(
    "repair: a snapshot table of zeros becomes no snapshots, and nothing of theirs is freed") {
  const Damage& sound = testing::damage("snapshot-forgotten");
  testing::Patient patient(sound.sound.build().flat());
  for (std::uint64_t at = 0; at < patient.cluster_size(); at += 8)
    patient.set(patient.snapshot_entry() + at, 0);
  const Repaired result = repaired(patient.bytes(), {.tier = RepairTier::all});
  CHECK(qcow2::decode_header(result.bytes)->nb_snapshots == 0);
  CHECK(count(result.repair, Mending::free_cluster) == 0);
  CHECK(result.repair.kept_clusters > 0);
}

TEST_CASE("repair: what a forgotten snapshot shares with the disk keeps its refcount") {
  for (const RepairTier tier : {RepairTier::leaks, RepairTier::all}) {
    const Repaired result = repaired(testing::damage("snapshot-forgotten").image(), {.tier = tier});
    CHECK(count(result.repair, Mending::free_cluster) == 0);
    CHECK(count(result.repair, Mending::lower_refcount) == 0);
    CHECK(result.repair.kept_clusters > 0);
  }
}

TEST_CASE("repair: clusters behind a part of an L2 table that was wiped keep their refcount") {
  const Repaired kept =
      repaired(testing::damage("l2-table-sector-wiped").image(), {.tier = RepairTier::leaks});
  CHECK(kept.repair.kept_clusters == 64);
  CHECK(count(kept.repair, Mending::free_cluster) == 0);
  // One leak does not make a doubt of a table with sectors that were never used.
  testing::Patient leak(testing::damage("l2-table-sector-wiped").sound.build().flat());
  leak.set_refcount(leak.bytes().size() / leak.cluster_size(), 1);
  leak.resize(leak.bytes().size() + leak.cluster_size());
  CHECK(repaired(leak.bytes(), {.tier = RepairTier::leaks}).repair.kept_clusters == 0);
}

TEST_CASE(
    "repair: where a refcount block was wiped, what may be lost data gets its refcount back") {
  const auto wiped = [](const std::string& name) {
    testing::Patient patient(testing::damage(name).image());
    const std::uint64_t block = patient.at(patient.refcount_table_entry());
    for (std::uint64_t at = 0; at < patient.cluster_size(); at += 8)
      patient.set(block + at, 0);
    return patient.bytes();
  };
  for (const char* name : {"l1-entry-zeroed", "l2-table-lost", "l2-entry-twice"}) {
    CAPTURE(name);
    const Repaired result = repaired(wiped(name), {.tier = RepairTier::all});
    CHECK(result.repair.kept_clusters != 0);
    CHECK(result.repair.after.counts.leaks == result.repair.kept_clusters);
    const Repaired freed = repaired(wiped(name));
    CHECK(freed.repair.after.counts.leaks == 0);
  }
  // Lost refcounts alone are no doubt.
  CHECK(repaired(wiped("dirty-bit"), {.tier = RepairTier::all}).repair.kept_clusters == 0);
}
