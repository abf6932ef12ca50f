// SPDX-License-Identifier: MIT
#include "crash_log.hpp"
#include "damage.hpp"
#include "flipped_images.hpp"
#include "guest_reads.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <set>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/io/open.hpp>
#include <coldchain/ops/repair.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using finding::Code;
using finding::Finding;
using testing::Damage;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

Bytes content(const io::File& file) {
  Bytes bytes(file.size());
  REQUIRE(io::read_exactly(file, {0}, bytes, "file").has_value());
  return bytes;
}

struct Repaired {
  Bytes bytes;
  Repair repair;
};

Repaired repaired(const Bytes& image, const RepairOptions& options) {
  const io::MemoryFile file(image);
  edit::Transaction transaction(file);
  Result<Repair> repair = plan_repair(transaction, nullptr, options);
  REQUIRE_MESSAGE(repair.has_value(), repair.error().message);
  return {content(transaction.view()), std::move(*repair)};
}

Repaired repaired(const Bytes& image) {
  return repaired(image, {.tier = RepairTier::all, .free_orphans = true});
}

std::uint64_t count(const Repair& repair, Mending mending) {
  std::uint64_t count = 0;
  for (const Action& action : repair.actions)
    count += action.mending == mending ? action.count : 0;
  return count;
}

bool is_clean(const Condition& condition) {
  return condition.findings.worst() < finding::Severity::leak && !condition.failure;
}

// What must never become worse, even for a moment: clusters that a writer may take although
// something refers to them, or that a flag lets it write to although they are shared.
std::set<std::uint64_t> dangers(const check::CheckResult& result, unsigned cluster_bits) {
  std::set<std::uint64_t> places;
  for (const Finding& finding : result.findings.runs()) {
    for (std::uint64_t i = 0; i < finding.count; ++i) {
      if (finding.code == Code::refcount_too_low)
        places.insert(finding.index + i);
      const bool is_flag = finding.code == Code::l1_entry_copied_wrong ||
                           finding.code == Code::l2_entry_copied_wrong;
      if (is_flag && finding.found != 1)
        places.insert(((finding.entry + i * finding.entry_step) & qcow2::offset_mask) >>
                      cluster_bits);
    }
  }
  return places;
}

std::optional<check::CheckResult> checked(const Bytes& bytes) {
  const io::MemoryFile file(bytes);
  const Result<qcow2::Image> image = qcow2::Image::open_damaged(file);
  if (!image)
    return std::nullopt;
  Result<check::CheckResult> result = check::check(*image, {});
  return result ? std::optional(std::move(*result)) : std::nullopt;
}

// A repair as it is carried out, and all that was written on the way.
struct Carried {
  Bytes before;
  Bytes after;
  testing::CrashLog log;  // file 0 is the image, file 1 the side file
};

Carried carried_out(const Bytes& image) {
  Carried carried{image, {}, {}};
  testing::CrashFile file(image, 0, carried.log);
  testing::CrashFile side(Bytes(), 1, carried.log);
  edit::Transaction transaction(file);
  REQUIRE(plan_repair(transaction, nullptr, {.tier = RepairTier::all}).has_value());
  const auto journal =
      edit::Journal::create(side, transaction, file.status().identity, {.verb = "repair"});
  REQUIRE(journal.has_value());
  REQUIRE(edit::roll_forward(*journal, file).has_value());
  carried.after = file.content();
  return carried;
}

// The image at one crash is no worse than before, and the side file leads forward and back.
void look_at_crash(const Carried& carried, const Bytes& image, const Bytes& side) {
  io::MemoryFile side_file(side, 1);
  const bool is_incomplete = edit::Journal::is_incomplete(side_file).value();
  if (is_incomplete) {
    CHECK(image == carried.before);
    return;
  }
  const auto journal = edit::Journal::open(side_file);
  REQUIRE_MESSAGE(journal.has_value(), journal.error().message);
  for (const bool is_forward : {true, false}) {
    io::MemoryFile file(image);
    const Result<void> done =
        is_forward ? edit::roll_forward(*journal, file) : edit::roll_back(*journal, file);
    REQUIRE_MESSAGE(done.has_value(), done.error().message);
    CHECK(file.content() == (is_forward ? carried.after : carried.before));
  }
}

void look_at_state(const Carried& carried, const Bytes& image,
                   const std::set<std::uint64_t>& dangers_before,
                   const testing::GuestReads& reads_before,
                   const testing::GuestReads& reads_after) {
  const auto now = checked(image);
  REQUIRE((now.has_value() || !checked(carried.before).has_value()));
  if (!now)
    return;
  const unsigned cluster_bits = qcow2::decode_header(carried.before)->cluster_bits;
  for (const std::uint64_t place : dangers(*now, cluster_bits))
    CHECK(dangers_before.contains(place));
  const io::MemoryFile file(image);
  for (const auto& entry : testing::guest_reads(file)) {
    const std::string& place = entry.first;
    const auto before = reads_before.find(place);
    const auto after = reads_after.find(place);
    const bool is_as_before = before != reads_before.end() && before->second == entry.second;
    const bool is_as_after = after != reads_after.end() && after->second == entry.second;
    CHECK_MESSAGE((is_as_before || is_as_after), place);
  }
}

}  // namespace

TEST_CASE("repair: of every recipe mends all that has an answer, and again changes nothing") {
  // What needs a person: data that is gone, features that contradict each other.
  const std::set<Code> left = {Code::reference_past_end,        Code::l1_entry_reserved,
                               Code::structures_overlap,        Code::snapshot_table_too_large,
                               Code::snapshot_table_unaligned,  Code::snapshot_l1_unaligned,
                               Code::snapshot_l1_too_large,     Code::snapshot_l1_too_small,
                               Code::snapshot_with_data_file,   Code::header_backing_name_overlaps,
                               Code::snapshot_entry_incomplete, Code::encryption_header_bad,
                               Code::refcount_overflow,         Code::zero_flag_not_allowed,
                               Code::data_file_offset_differs,  Code::data_in_metadata,
                               Code::cluster_used_twice,        Code::bitmap_coverage_wrong,
                               Code::bitmap_unknown_flags,      Code::bitmap_unknown_type,
                               Code::bitmap_name_repeated};
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const Repaired once = repaired(damage.image());
    const auto& after = once.repair.after.findings.runs();
    // Where the L1 table itself is gone, the file must not grow over the place where it was.
    const bool has_no_mapping = std::any_of(after.begin(), after.end(), [](const Finding& finding) {
      return finding.code == Code::reference_past_end &&
             finding.structure == finding::Structure::l1_table && finding.host.empty();
    });
    for (const Finding& finding : after) {
      if (finding::row(finding.code).severity > finding::Severity::leak)
        CHECK_MESSAGE((left.contains(finding.code) ||
                       (has_no_mapping && finding.code == Code::refcount_too_low)),
                      finding::row(finding.code).slug);
    }
    const Repaired again = repaired(once.bytes);
    CHECK(again.repair.actions.empty());
    CHECK(again.bytes == once.bytes);
  }
}

TEST_CASE(
    "repair: what the guest could read before, it reads after, but for what is told as lost") {
  int refused = 0;
  const auto compare = [&](const Bytes& image) {
    const io::MemoryFile before_file(image);
    edit::Transaction transaction(before_file);
    const Result<Repair> repair = plan_repair(transaction, nullptr, {.tier = RepairTier::all});
    refused += repair ? 0 : 1;
    if (!repair)
      return;
    const io::MemoryFile after_file(content(transaction.view()));
    const testing::GuestReads before = testing::guest_reads(before_file);
    const testing::GuestReads after = testing::guest_reads(after_file);
    bool has_lost = false;
    for (const Action& action : repair->actions)
      has_lost =
          has_lost || !action.lost.empty() || action.mending == Mending::write_snapshot_table;
    for (const auto& entry : before) {
      if (entry.second && !has_lost)
        CHECK_MESSAGE((after.at(entry.first) == entry.second), entry.first);
    }
  };
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    compare(damage.image());
  }
  for (int seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    const Bytes image = testing::flipped_image(seed);
    const auto before = checked(image);
    if (before && !before->is_partial)
      compare(image);
  }
  // A repair is refused where it would leave other damage: hardly ever.
  CHECK(refused <= 4);
}

TEST_CASE("repair: at each moment on the way, nothing is more dangerous than before") {
  std::mt19937_64 random(7);
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const Carried carried = carried_out(damage.image());
    const auto before = checked(carried.before);
    const unsigned cluster_bits = qcow2::decode_header(carried.before)->cluster_bits;
    const std::set<std::uint64_t> dangers_before =
        before ? dangers(*before, cluster_bits) : std::set<std::uint64_t>{};
    const io::MemoryFile before_file(carried.before);
    const io::MemoryFile after_file(carried.after);
    const testing::GuestReads reads_before = testing::guest_reads(before_file);
    const testing::GuestReads reads_after = testing::guest_reads(after_file);
    for (std::size_t steps = 0; steps <= carried.log.size(); ++steps) {
      CAPTURE(steps);
      // All that was written is there, nothing but what was flushed, and a part of the rest.
      for (int kind = 0; kind < 4; ++kind) {
        const auto keeps = [&] { return kind == 0 || (kind > 1 && random() % 2 == 0); };
        const Bytes image = testing::after_crash(carried.log, steps, 0, carried.before, keeps);
        const Bytes side = testing::after_crash(carried.log, steps, 1, Bytes(), keeps);
        look_at_crash(carried, image, side);
        if (image != carried.before)
          look_at_state(carried, image, dangers_before, reads_before, reads_after);
      }
    }
  }
}

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
    const auto target = files->open_writable(folder / "a").value();
    const qcow2::Image image = qcow2::Image::open(*target.file).value();
    const std::vector<be64> l1 = image.active_mapping()->l1();
    const auto entry_of = [&](std::uint64_t cluster) {
      return qcow2::L1Entry(l1[cluster / 8192].get()).l2_table() + cluster % 8192 * 8;
    };
    const auto set = [&](std::uint64_t cluster, std::uint64_t raw) {
      REQUIRE(target.file->write_at(entry_of(cluster), bytes_of(be64(raw))).has_value());
    };
    for (std::uint64_t cluster = 1; cluster < clusters; cluster += 2)
      set(cluster, 0);
    const auto number_at = [&](HostOffset offset) {
      be64 raw;
      REQUIRE(io::read_exactly(*target.file, offset, std::as_writable_bytes(std::span(&raw, 1)),
                               "number")
                  .has_value());
      return raw.get();
    };
    const std::uint64_t shared = number_at(entry_of(0)) & qcow2::offset_mask;
    set(0, shared);
    set(1, shared);
    const HostOffset block{number_at({image.header().refcount_table_offset})};
    REQUIRE(target.file->write_at(block + (shared >> 16) * 2, bytes_of(be16(2))).has_value());
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

TEST_CASE("repair: unknown autoclear features are cleared by whoever writes, and only then") {
  testing::Patient patient(testing::damage("unknown-autoclear-bit").image());
  CHECK(repaired(patient.bytes()).repair.actions.empty());
  patient.set_refcount(patient.host_cluster(3), 0);
  const Repaired result = repaired(patient.bytes());
  const io::MemoryFile file(result.bytes);
  CHECK(qcow2::read_header(file)->autoclear_features == 0);
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
