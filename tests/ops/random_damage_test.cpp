// SPDX-License-Identifier: MIT
// References that go wrong in every combination, drawn at random: whatever a
// repair thinks that it mends, it must not make worse what was sound.
#include "damage.hpp"
#include "draw.hpp"
#include "guest_reads.hpp"
#include "patient.hpp"

#include <coldchain/check/check.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/ops/repair.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using testing::Draw;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Patient;

namespace {

constexpr std::uint64_t tables = 10;
constexpr std::uint64_t entries = 64;  // of a table, with clusters of 512 bytes

Bytes sound_image(Draw& draw) {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = tables * entries * 512;
  options.refcount_order = static_cast<std::uint32_t>(2 + draw.below(4));
  ImageBuilder builder(options);
  for (std::uint64_t table = 0; table + 1 < tables; ++table) {
    const std::uint64_t count = 5 + draw.below(50);
    for (std::uint64_t i = 0; i < count; ++i)
      builder.data(table * entries + i, static_cast<std::uint8_t>(1 + (table * entries + i) % 255));
  }
  if (draw.below(2) == 0)
    builder.snapshot("1", "one");
  return builder.build().flat();
}

// What was damaged before may lead anywhere.
bool has(const Patient& patient, std::uint64_t at) {
  return at < patient.bytes().size() && patient.bytes().size() - at >= 8;
}

std::uint64_t read(const Patient& patient, std::uint64_t at) {
  return has(patient, at) ? patient.at(at) : 0;
}

void write(Patient& patient, std::uint64_t at, std::uint64_t value) {
  if (has(patient, at))
    patient.set(at, value);
}

void damage_once(Patient& patient, Draw& draw) {
  const std::uint64_t end = patient.bytes().size();
  const std::uint64_t somewhere = (1 + draw.below(end / 512 + 2)) * 512;
  const std::uint64_t metadata[] = {patient.header().l1_table_offset,
                                    patient.header().refcount_table_offset,
                                    read(patient, patient.refcount_table_entry()),
                                    read(patient, patient.l1_entry(1)) & qcow2::offset_mask};
  const std::uint64_t place = draw.below(2) == 0 ? somewhere : metadata[draw.below(4)];
  const std::uint64_t odd = draw.below(5) == 0 ? 1ULL << (56 + draw.below(6)) : 0;
  switch (draw.below(7)) {
    case 0:
      return write(patient, patient.l1_entry(draw.below(tables)), place | qcow2::copied_flag | odd);
    case 1:
    case 2: {
      const std::uint64_t first = draw.below((tables - 1) * entries / 2);
      for (std::uint64_t i = 0; i <= draw.below(4); ++i)
        write(patient, patient.l2_entry(first + i), (place + i * 512) | qcow2::copied_flag | odd);
      return;
    }
    case 3:
      return write(patient, patient.refcount_table_entry(draw.below(4)),
                   place | (odd != 0 ? 1 : 0));
    case 4:
      return write(patient, read(patient, patient.refcount_table_entry()) + draw.below(64) * 8,
                   draw.below(2) == 0 ? 0 : ~0ULL);
    case 5:
      return patient.set_header(
          [&](qcow2::Header& header) { header.refcount_table_offset = place; });
    default:
      if (patient.header().nb_snapshots != 0)
        write(patient, patient.snapshot_entry(), place);
      return;
  }
}

std::optional<check::CheckResult> checked(const io::File& file) {
  const Result<qcow2::Image> image = qcow2::Image::open_damaged(file);
  Result<check::CheckResult> result = image ? check::check(*image, {}) : fail(image.error());
  return result ? std::optional(std::move(*result)) : std::nullopt;
}

// The result reads what the damaged image read right, frees nothing that the
// sound one used, and has no refcount that was right and is too low.
void compare(const Bytes& sound_bytes, const Bytes& damaged_bytes, const io::File& repaired) {
  const io::MemoryFile sound_file(sound_bytes);
  const io::MemoryFile damaged_file(damaged_bytes);
  const auto sound = checked(sound_file);
  const auto damaged = checked(damaged_file);
  const auto result = checked(repaired);
  REQUIRE((sound && damaged && result));
  check::StoredRefcounts::Cursor then;
  check::StoredRefcounts::Cursor now;
  const bool was_table_sound = qcow2::decode_header(sound_bytes)->refcount_table_offset ==
                               qcow2::decode_header(damaged_bytes)->refcount_table_offset;
  for (std::uint64_t cluster = 0; cluster < sound_bytes.size() / 512; ++cluster) {
    CAPTURE(cluster);
    const std::uint64_t before = damaged->stored.at(cluster, then).value_or(0);
    const std::uint64_t after = result->stored.at(cluster, now).value_or(0);
    if (before >= damaged->claims.at(cluster) && damaged->claims.at(cluster) != 0)
      CHECK(after >= std::min(before, result->claims.at(cluster)));
    const bool is_lost = sound->claims.at(cluster) != 0 && result->claims.at(cluster) == 0;
    const bool is_data =
        std::none_of(sound->owners.begin(), sound->owners.end(), [&](const check::Owner& owner) {
          const bool is_of_counts = owner.structure == finding::Structure::refcount_table ||
                                    owner.structure == finding::Structure::refcount_block;
          return is_of_counts && cluster >= owner.first && cluster - owner.first < owner.count;
        });
    if (is_lost && is_data && before != 0 && was_table_sound)
      CHECK(after != 0);
  }
  const testing::GuestReads expected = testing::guest_reads(sound_file);
  const testing::GuestReads before = testing::guest_reads(damaged_file);
  const testing::GuestReads after = testing::guest_reads(repaired);
  // Where somebody else names the same cluster, nobody knows whose it is.
  const bool is_shared = std::any_of(damaged->findings.runs().begin(),
                                     damaged->findings.runs().end(), [](const auto& finding) {
                                       return finding.code == finding::Code::cluster_used_twice ||
                                              finding.code == finding::Code::data_in_metadata ||
                                              finding.code == finding::Code::structures_overlap ||
                                              finding.code == finding::Code::refcount_overflow ||
                                              finding.code == finding::Code::refcount_too_low;
                                     });
  for (const auto& entry : expected) {
    const auto found = before.find(entry.first);
    if (!is_shared && found != before.end() && found->second == entry.second)
      CHECK_MESSAGE((after.count(entry.first) != 0 && after.at(entry.first) == entry.second),
                    entry.first);
  }
}

}  // namespace

TEST_CASE(
    "repair: of references that are wrong at random harms nothing that "
    "was sound") {
  int planned = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 1500; ++seed) {
    CAPTURE(seed);
    Draw draw(seed);
    const Bytes sound = sound_image(draw);
    Patient patient(sound);
    for (std::uint64_t i = 0; i <= draw.below(4); ++i)
      damage_once(patient, draw);
    const io::MemoryFile file(patient.bytes());
    edit::Transaction transaction(file);
    const Result<Repair> repair = plan_repair(transaction, nullptr, {.tier = RepairTier::all});
    ++(repair ? planned : refused);
    if (repair)
      compare(sound, patient.bytes(), transaction.view());
  }
  CHECK(planned > 50 * refused);
}
