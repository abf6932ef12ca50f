// SPDX-License-Identifier: MIT
#include "crash_log.hpp"
#include "damage.hpp"
#include "flipped_images.hpp"
#include "guest_reads.hpp"
#include "repaired.hpp"
#include "sparse_file.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <set>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/io/open.hpp>
#include <coldchain/ops/repair.hpp>
#include <coldchain/qcow2/snapshots.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using finding::Code;
using finding::Finding;
using testing::content;
using testing::count;
using testing::Damage;
using testing::Repaired;
using testing::repaired;

namespace {

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
  const std::set<Code> left = {Code::reference_past_end,
                               Code::l1_entry_reserved,
                               Code::structures_overlap,
                               Code::snapshot_table_too_large,
                               Code::snapshot_table_unaligned,
                               Code::snapshot_l1_unaligned,
                               Code::snapshot_l1_too_large,
                               Code::snapshot_l1_too_small,
                               Code::snapshot_with_data_file,
                               Code::header_backing_name_overlaps,
                               Code::snapshot_entry_incomplete,
                               Code::encryption_header_bad,
                               Code::refcount_overflow,
                               Code::zero_flag_not_allowed,
                               Code::data_file_offset_differs,
                               Code::data_in_metadata,
                               Code::cluster_used_twice,
                               Code::bitmap_coverage_wrong,
                               Code::bitmap_unknown_flags,
                               Code::bitmap_unknown_type,
                               Code::bitmap_name_repeated,
                               Code::data_past_end,
                               Code::table_past_end};
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const Repaired once = repaired(damage.image());
    const auto& after = once.repair.after.findings.runs();
    // Where the L1 table itself is gone, the file must not grow over the place where it was.
    const bool has_no_mapping = std::any_of(after.begin(), after.end(), [](const Finding& finding) {
      return finding.code == Code::reference_past_end &&
             finding.structure == finding::Structure::l1_table && finding.host.empty();
    });
    // Where a refcount cannot count all references, no flag may say that there is one.
    const bool is_shared_unseen = once.repair.after.findings.has(Code::refcount_overflow);
    for (const Finding& finding : after) {
      if (is_shared_unseen && finding.code == Code::l2_entry_copied_wrong)
        continue;
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
    // A table that is found again changes what a wrong L1 entry showed; wrong_tables_test.cpp has
    // the content.
    for (const Action& action : repair->actions)
      has_lost = has_lost || !action.lost.empty() ||
                 action.mending == Mending::write_snapshot_table ||
                 action.mending == Mending::link_l2_table;
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

TEST_CASE("repair: unknown autoclear features are cleared by whoever writes, and only then") {
  testing::Patient patient(testing::damage("unknown-autoclear-bit").image());
  CHECK(repaired(patient.bytes()).repair.actions.empty());
  patient.set_refcount(patient.host_cluster(3), 0);
  const Repaired result = repaired(patient.bytes());
  const io::MemoryFile file(result.bytes);
  CHECK(qcow2::read_header(file)->autoclear_features == 0);
}

TEST_CASE("repair: metadata that no file of this storage can need is refused with both figures") {
  // 2 GiB between two clusters: each needs a refcount block of its own.
  constexpr std::uint64_t distance = 2ULL << 30;
  for (const std::uint64_t clusters : {500U, 1100U}) {
    testing::ImageOptions options;
    options.size = clusters << 16;
    testing::Patient patient(testing::ImageBuilder(options).data(0, 'd').build().flat());
    for (std::uint64_t cluster = 1; cluster < clusters; ++cluster)
      patient.set(patient.l2_entry(cluster), (cluster * distance) | qcow2::copied_flag);
    const testing::SparseFile file(patient.bytes(), clusters * distance);
    edit::Transaction transaction(file);
    const Result<Repair> repair = plan_repair(transaction, nullptr, {.tier = RepairTier::all});
    CAPTURE(clusters);
    CHECK(repair.has_value() == (clusters < 1024));
    if (!repair) {
      CHECK(repair.error().code == ErrorCode::refused);
      CHECK(repair.error().message.find("no sound image has so much") != std::string::npos);
    }
  }
}

TEST_CASE("repair: a snapshot entry that is completed has the extra data that QEMU 7.2 writes") {
  const Repaired result =
      repaired(testing::damage("snapshot-extra-data-too-short").image(), {.tier = RepairTier::all});
  const io::MemoryFile file(result.bytes);
  const auto header = qcow2::decode_header(result.bytes).value();
  const auto snapshots = qcow2::read_snapshots(file, header).value();
  REQUIRE(snapshots.size() == 1);
  CHECK(snapshots[0].extra_data.size() == 24);
  CHECK(snapshots[0].disk_size() == header.size);
  CHECK_FALSE(snapshots[0].icount().has_value());
}

TEST_CASE("repair: a loss is reported once, when the entry is written") {
  testing::ImageOptions options;
  options.extended_l2 = true;
  options.cluster_bits = 14;
  testing::Patient patient(
      testing::ImageBuilder(options).subclusters(3, 0b101, 0, 'x').bitmap("b", 0).build().flat());
  patient.set(patient.l2_entry(3), 1ULL << 40);
  // While a bitmap uses the cluster of the L2 table, no entry there is written.
  patient.set(patient.bitmap_table(), patient.at(patient.l1_entry()) & qcow2::offset_mask);
  std::vector<GuestRange> lost;
  for (const Action& action : repaired(patient.bytes()).repair.actions) {
    if (action.mending != Mending::read_as_zeros || action.lost.empty())
      continue;
    CHECK(std::find(lost.begin(), lost.end(), action.lost) == lost.end());
    lost.push_back(action.lost);
  }
}
