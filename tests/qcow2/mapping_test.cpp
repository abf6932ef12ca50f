// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "patient.hpp"
#include "sparse_file.hpp"
#include "unreadable_file.hpp"

#include <memory>
#include <random>

#include <coldchain/base/checked.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/image.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

struct Opened {
  explicit Opened(const ImageBuilder& builder) : file(builder.build().flat()) {}
  io::MemoryFile file;
  Image image = Image::open(file).value();
  Mapping mapping = image.active_mapping().value();

  [[nodiscard]] Result<std::vector<Run>> runs(std::uint64_t begin, std::uint64_t end) const {
    Mapping::Cursor cursor;
    std::vector<Run> found;
    mapping.runs({{begin}, {end}}, cursor, found);
    return found;
  }
};

// Of the first cluster that no entry describes as it must.
std::string error_of(const ImageBuilder& builder) {
  const Opened opened(builder);
  Mapping::Cursor cursor;
  const std::vector<Run> runs = opened.runs(0, opened.image.guest_size()).value();
  for (const Run& run : runs) {
    if (run.kind != RunKind::unknown)
      continue;
    CHECK(run.unreadable == Unreadable::entry);
    CHECK(run.guest.size() == opened.mapping.geometry().cluster_size());
    const auto location = opened.mapping.locate(run.guest.begin, cursor);
    REQUIRE_FALSE(location);
    return location.error().message;
  }
  return "";
}

}  // namespace

TEST_CASE("runs: neighbours that continue each other are one run, others are not") {
  ImageBuilder builder{ImageOptions{}};
  builder.data(1, 1).data(2, 2).data(4, 4).data(3, 3).zero(5).zero(6).compressed(7, 7).compressed(
      8, 8);
  const Opened opened(builder);
  const auto runs = opened.runs(0, 1 << 20).value();
  std::vector<RunKind> kinds;
  std::vector<std::uint64_t> lengths;
  for (const Run& run : runs) {
    kinds.push_back(run.kind);
    lengths.push_back(run.guest.size() / 65536);
  }
  using enum RunKind;
  CHECK(kinds ==
        std::vector<RunKind>{unallocated, data, data, data, zero, compressed, unallocated});
  CHECK(lengths == std::vector<std::uint64_t>{1, 2, 1, 1, 2, 2, 7});
}

TEST_CASE("runs: equal entries with a host offset are not contiguous") {
  ImageBuilder builder{ImageOptions{}};
  builder.zero_reserved(0);
  const std::uint64_t entry = 0x10000 | copied_flag | zero_flag;
  builder.raw_entry(1, entry);
  const Opened opened(builder);
  CHECK(opened.runs(0, 131072).value().size() == 2);
}

TEST_CASE("runs: cut anywhere, the pieces are those of the whole") {
  std::mt19937_64 random(7);
  for (const bool extended : {false, true}) {
    ImageOptions options;
    options.cluster_bits = 14;
    options.extended_l2 = extended;
    options.size = 300 * 16384 - 512;
    ImageBuilder builder(options);
    for (std::uint64_t cluster = 0; cluster < 300; ++cluster) {
      switch (random() % 5) {
        case 0:
          builder.data(cluster, 1);
          break;
        case 1:
          builder.zero(cluster);
          break;
        case 2:
          if (extended) {
            const auto bits = static_cast<std::uint32_t>(random());
            builder.subclusters(cluster, bits & 0xaaaaffff, bits & 0x55550000, 3);
          }
          break;
        default:
          break;
      }
    }
    const Opened opened(builder);
    const auto whole = opened.runs(0, options.size).value();
    for (int round = 0; round < 200; ++round) {
      const std::uint64_t begin = random() % options.size / 512 * 512;
      const std::uint64_t end = begin + random() % (options.size - begin) + 1;
      std::uint64_t position = begin;
      const auto part = opened.runs(begin, end).value();
      for (const Run& run : part) {
        CHECK(run.guest.begin.value == position);
        position = run.guest.end.value;
        for (const Run& other : whole) {
          if (!other.guest.contains(run.guest.begin))
            continue;
          CHECK(other.kind == run.kind);
          CHECK(other.guest.end >= run.guest.end);
          if (has_host(run.kind))
            CHECK(other.host + (run.guest.begin - other.guest.begin) == run.host);
        }
      }
      CHECK(position == std::min(end, options.size));
    }
  }
}

TEST_CASE("runs: the cluster that the guest's end cuts is cut") {
  ImageOptions options;
  options.size = 65536 + 512;
  ImageBuilder builder(options);
  builder.data(0, 1).data(1, 1);
  const Opened opened(builder);
  const auto runs = opened.runs(0, 1 << 20).value();
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].guest.size() == 65536 + 512);
}

TEST_CASE("runs: subclusters are told apart by their bits") {
  ImageOptions options;
  options.extended_l2 = true;
  ImageBuilder builder(options);
  builder.subclusters(0, 0x0000'000f, 0x0000'00f0, 1).subclusters(1, 0, 0xffff'0000, 0, false);
  const Opened opened(builder);
  const auto runs = opened.runs(0, 131072).value();
  using enum RunKind;
  REQUIRE(runs.size() == 5);
  CHECK(runs[0].kind == data);
  CHECK(runs[1].kind == zero_reserved);
  CHECK(runs[2].kind == reserved);
  CHECK(runs[3].kind == unallocated);
  CHECK(runs[4].kind == zero);
  CHECK(runs[0].guest.size() == 4 * 2048);
  CHECK(runs[1].host == runs[0].host + 4 * 2048);
}

TEST_CASE("runs: entries that cannot be right are named with table and index") {
  CHECK(error_of(ImageBuilder{ImageOptions{}}.raw_entry(3, 0x10200))
            .find("entry 3: host cluster offset is not aligned") != std::string::npos);
  ImageOptions version2;
  version2.version = 2;
  CHECK(
      error_of(ImageBuilder(version2).raw_entry(2, 1)).find("zero cluster in a version 2 image") !=
      std::string::npos);
  ImageOptions extended;
  extended.extended_l2 = true;
  CHECK(error_of(ImageBuilder(extended).raw_entry(0, 0x10000, 0x1'0000'0001))
            .find("subcluster bitmap contradicts itself") != std::string::npos);
  CHECK(error_of(ImageBuilder(extended).raw_entry(0, 0, 1))
            .find("subcluster bitmap contradicts itself") != std::string::npos);
}

TEST_CASE("runs: with an external data file, host and guest offsets are the same") {
  ImageOptions options;
  options.data_file = "data";
  CHECK(Opened(ImageBuilder(options).data(3, 1)).runs(0, 1 << 20).has_value());
  CHECK(error_of(ImageBuilder(options).raw_entry(3, 0x10000 | copied_flag))
            .find("host offset differs from guest offset") != std::string::npos);
  CHECK(error_of(ImageBuilder(options).raw_entry(3, compressed_flag | 0x10000))
            .find("compressed cluster in an image with an external data file") !=
        std::string::npos);
}

TEST_CASE("runs: an L2 table outside the file or unaligned is unknown, not zeros") {
  ImageBuilder builder{ImageOptions{}};
  builder.data(0, 1);
  auto bytes = builder.build();
  const Header header = decode_header(bytes.pieces.at(0)).value();
  for (const std::uint64_t offset :
       std::vector<std::uint64_t>{0x4000'0000, 0x10200, bytes.size - 512}) {
    Bytes flat = bytes.flat();
    const be64 entry(offset);
    std::copy_n(bytes_of(entry).begin(), 8,
                flat.begin() + static_cast<std::ptrdiff_t>(header.l1_table_offset));
    const io::MemoryFile file(flat);
    const Image image = Image::open(file).value();
    const Mapping mapping = image.active_mapping().value();
    Mapping::Cursor cursor;
    std::vector<Run> runs;
    mapping.runs({{0}, {1 << 20}}, cursor, runs);
    REQUIRE_FALSE(runs.empty());
    CHECK(runs.back().kind == RunKind::unknown);
    CHECK(runs.back().unreadable == Unreadable::table);
    CHECK(runs.back().guest.end.value == 1 << 20);
  }
}

TEST_CASE("runs: a sector of a table that cannot be read takes nothing else with it") {
  ImageOptions options;
  options.size = 8192ULL << 16;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 8192; cluster += 64)
    builder.data(cluster, 'd');
  const testing::Patient patient(builder.build().flat());
  const HostOffset table{patient.at(patient.l1_entry()) & offset_mask};
  const testing::UnreadableFile file(patient.bytes(), {{table + 8192, table + 8704}});
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  std::vector<Run> runs;
  mapping.runs({{0}, {options.size}}, cursor, runs);
  std::uint64_t data = 0;
  for (const Run& run : runs) {
    data += run.kind == RunKind::data ? 1 : 0;
    if (run.kind == RunKind::unknown) {
      CHECK(run.unreadable == Unreadable::table);
      CHECK(run.guest == GuestRange{{1024ULL << 16}, {1536ULL << 16}});
    }
  }
  CHECK(data == 128 - 512 / 64);
}

TEST_CASE("runs: a part of the L1 table that cannot be read takes nothing else with it") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 2048ULL * 64 << 9;
  ImageBuilder builder(options);
  builder.data(0, 'a').data(600 * 64, 'b').data(1500 * 64, 'c');
  const testing::Patient patient(builder.build().flat());
  const HostOffset l1{patient.header().l1_table_offset};
  const HostOffset begin{align_up(l1.value, 4096)};
  const testing::UnreadableFile file(patient.bytes(), {{begin, begin + 1}});
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  std::vector<Run> runs;
  mapping.runs({{0}, {options.size}}, cursor, runs);
  std::uint64_t unknown = 0;
  for (const Run& run : runs)
    unknown += run.kind == RunKind::unknown ? run.guest.size() : 0;
  CHECK(unknown == (512ULL * 64) << 9);
  CHECK(mapping.locate({1500ULL * 64 << 9}, cursor).value().kind == RunKind::data);
}

TEST_CASE("runs: a table that the file ends inside is read up to its last whole entry") {
  ImageOptions options;
  options.size = 8192ULL << 16;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 8192; cluster += 64)
    builder.data(cluster, 'd');
  testing::Patient patient(builder.build().flat());
  patient.move_named_to_end(patient.l1_entry());
  patient.resize(patient.l2_entry(1000) + 3);
  const io::MemoryFile file(patient.bytes());
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  std::vector<Run> runs;
  mapping.runs({{0}, {options.size}}, cursor, runs);
  REQUIRE(runs.size() == 2 * 16 + 1);
  CHECK(runs.back().unreadable == Unreadable::table);
  CHECK(runs.back().guest == GuestRange{{1000ULL << 16}, {options.size}});
  CHECK(runs[30].kind == RunKind::data);  // cluster 960
}

TEST_CASE("runs: what the missing end of an L1 table described is unknown") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 100ULL * 64 << 9;
  testing::Patient patient(ImageBuilder(options).data(0, 'a').data(99 * 64, 'b').build().flat());
  patient.move_named_to_end(offsetof(wire::Header, l1_table_offset));
  const std::uint64_t l1 = patient.at(offsetof(wire::Header, l1_table_offset));
  patient.resize(l1 + 4);
  patient.set_number(36, 4, 50);
  patient.set_number(24, 8, 50ULL * 64 << 9);
  const io::MemoryFile file(patient.bytes());
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  std::vector<Run> runs;
  mapping.runs({{0}, {mapping.guest_size()}}, cursor, runs);
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].unreadable == Unreadable::table);
  CHECK(mapping.end_without_tables({0}).value == mapping.guest_size());
}

TEST_CASE("state_of: a compressed cluster is lost where its last sector does not begin") {
  const CompressedExtent stream{{1000}, 512 * 3 - (1000 & 511)};  // up to 2048
  CHECK(state_of(stream, 2048) == Unreadable::no);
  CHECK(state_of(stream, 2047) == Unreadable::undecided);
  CHECK(state_of(stream, 1537) == Unreadable::undecided);
  CHECK(state_of(stream, 1536) == Unreadable::past_end);
  const CompressedExtent in_one_sector{{1000}, 24};
  CHECK(state_of(in_one_sector, 1001) == Unreadable::undecided);
  CHECK(state_of(in_one_sector, 1000) == Unreadable::past_end);
}

TEST_CASE("locate: ends where the file does, and says what lies behind it") {
  ImageBuilder builder{ImageOptions{}};
  builder.data(0, 1);
  testing::Patient patient(builder.build().flat());
  patient.move_to_end(0, 1);
  patient.resize(patient.bytes().size() - 65536 + 1000);
  const io::MemoryFile file(patient.bytes());
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  const Location there = mapping.locate({100}, cursor).value();
  CHECK(there.length == 900);
  CHECK(there.unreadable == Unreadable::no);
  const Location lost = mapping.locate({1000}, cursor).value();
  CHECK(lost.unreadable == Unreadable::past_end);
  Image::Unpacked unpacked;
  Bytes bytes(16);
  CHECK_FALSE(image.read(lost, {1000}, bytes, unpacked));
}

TEST_CASE("runs: a contiguous run never runs over the top of the offset field") {
  ImageBuilder builder{ImageOptions{}};
  builder.raw_entry(0, offset_mask & ~0xffffULL).raw_entry(1, (offset_mask & ~0xffffULL) + 0x10000);
  const Opened opened(builder);
  const auto runs = opened.runs(0, 131072).value();
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].kind == RunKind::data);
  CHECK(runs[1].kind == RunKind::unallocated);
}

TEST_CASE("locate: agrees with runs for every sector") {
  ImageOptions options;
  options.extended_l2 = true;
  ImageBuilder builder(options);
  builder.data(1, 1).zero(2).compressed(3, 3).subclusters(5, 0x00ff00ff, 0xff000000, 5);
  const Opened opened(builder);
  Mapping::Cursor cursor;
  const auto runs = opened.runs(0, options.size).value();
  for (const Run& run : runs) {
    for (std::uint64_t at = run.guest.begin.value; at < run.guest.end.value; at += 512) {
      const Location location = opened.mapping.locate({at}, cursor).value();
      CHECK(location.kind == run.kind);
      if (has_host(run.kind))
        CHECK(location.host == run.host + (at - run.guest.begin.value));
    }
  }
}

TEST_CASE(
    "runs: with a data file, a zero cluster that says copied but has no place is a plain zero") {
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder builder(options);
  builder.raw_entry(3, copied_flag | zero_flag);
  const Opened opened(builder);
  const auto runs = opened.runs(3 << 16, 4 << 16).value();
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].kind == RunKind::zero);
}

TEST_CASE("next_described: passes over what lies in holes of the file, without reading it") {
  ImageOptions options;
  options.size = 4ULL << 30;  // eight L2 tables of 512 MiB each
  ImageBuilder builder(options);
  builder.table(1).data(3 * 8192 + 5000, 'a');
  const testing::SparseFile file(builder.build().flat());
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  const std::uint64_t before = file.bytes_read();
  const GuestOffset end{options.size};
  const GuestOffset found = mapping.next_described({0}, end);
  CHECK(file.bytes_read() == before);
  // Holes are whole pages of 512 entries.
  CHECK(found.value == (3 * 8192 + 5000 / 512 * 512) * 65536ULL);
  CHECK(mapping.next_described(found + 1, end) == found + 1);
  CHECK(mapping.next_described({4ULL * 8192 * 65536}, end) == end);
}
