// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "image_builder.hpp"
#include "patient.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <fstream>
#include <random>

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::analysis;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

struct Opened {
  explicit Opened(const std::string& path) : files(io::system_files({}).value()) {
    graph::OpenRequest request;
    request.name = path;
    top = graph::open(*files, {}, request).value();
    chain.emplace(graph::Chain::make(*top).value());
  }
  std::unique_ptr<io::FileSource> files;
  std::unique_ptr<graph::Node> top;
  std::optional<graph::Chain> chain;

  [[nodiscard]] std::vector<Extent> extents(GuestRange range, unsigned workers) const {
    std::vector<Extent> found;
    REQUIRE(
        analysis::map(*chain, range, workers, [&](std::span<const Extent> some) -> Result<void> {
          found.insert(found.end(), some.begin(), some.end());
          return {};
        }));
    return found;
  }
  [[nodiscard]] std::vector<Extent> extents(unsigned workers = 1) const {
    return extents({{0}, {chain->guest_size()}}, workers);
  }
};

bool same(const Extent& a, const Extent& b) {
  return a.guest == b.guest && a.layer == b.layer && a.present == b.present && a.zero == b.zero &&
         a.data == b.data && a.has_host == b.has_host && (!a.has_host || a.host == b.host) &&
         a.compressed == b.compressed && a.past_end == b.past_end;
}

// Three layers of different cluster sizes, the middle one with subclusters and shorter than the
// top.
void make_mixed_chain(const TempFolder& folder, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  ImageOptions options;
  for (int layer = 0; layer < 3; ++layer) {
    const std::uint32_t bits[] = {12, 16, 14};
    const std::uint64_t sizes[] = {6 << 20, 5 << 20, 8 << 20};
    options.cluster_bits = bits[layer];
    options.extended_l2 = layer == 1;
    options.size = sizes[layer];
    ImageBuilder builder(options);
    builder.shuffle(700, seed + static_cast<std::uint64_t>(layer));
    const std::uint64_t clusters = options.size >> options.cluster_bits;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t cluster = random() % clusters;
      const auto bits_of = static_cast<std::uint32_t>(random());
      switch (random() % 4) {
        case 0:
          builder.zero(cluster);
          break;
        case 1:
          builder.compressed(cluster, 'c');
          break;
        default:
          if (options.extended_l2)
            builder.subclusters(cluster, bits_of & 0xcccccccc, bits_of & 0x33333333, 'x');
          else
            builder.data(cluster, static_cast<std::uint8_t>(i));
      }
    }
    builder.build().write_to(folder / std::to_string(layer));
    options.backing_file = std::to_string(layer);
    options.backing_format = "qcow2";
  }
}

}  // namespace

TEST_CASE("map: the extents cover the range without gaps and none continues the one before") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const TempFolder folder;
    make_mixed_chain(folder, seed);
    const Opened opened(folder / "2");
    const auto extents = opened.extents();
    std::uint64_t position = 0;
    for (std::size_t i = 0; i < extents.size(); ++i) {
      CHECK(extents[i].guest.begin.value == position);
      position = extents[i].guest.end.value;
      if (i > 0)
        CHECK_FALSE(continues(extents[i - 1], extents[i]));
    }
    CHECK(position == 8 << 20);
  }
}

TEST_CASE("map: the result does not depend on the number of workers") {
  const TempFolder folder;
  make_mixed_chain(folder, 9);
  const Opened opened(folder / "2");
  const auto alone = opened.extents(1);
  for (const unsigned workers : {2U, 5U}) {
    const auto together = opened.extents(workers);
    REQUIRE(together.size() == alone.size());
    for (std::size_t i = 0; i < alone.size(); ++i)
      CHECK(same(alone[i], together[i]));
  }
}

TEST_CASE("map: a part of the range gives the extents of the whole, cut") {
  const TempFolder folder;
  make_mixed_chain(folder, 3);
  const Opened opened(folder / "2");
  const auto whole = opened.extents();
  std::mt19937_64 random(4);
  for (int round = 0; round < 50; ++round) {
    const std::uint64_t begin = random() % (8 << 20);
    const std::uint64_t end = begin + 1 + random() % ((8 << 20) - begin);
    std::uint64_t position = begin;
    std::size_t at = 0;
    for (const Extent& extent : opened.extents({{begin}, {end}}, 2)) {
      while (whole[at].guest.end <= extent.guest.begin)
        ++at;
      Extent expected = whole[at];
      expected.host = expected.host + (position - expected.guest.begin.value);
      expected.guest = {{position}, {std::min(end, whole[at].guest.end.value)}};
      CHECK(same(extent, expected));
      position = extent.guest.end.value;
    }
    CHECK(position == end);
  }
}

TEST_CASE("map: says of every byte what a read of it finds") {
  const TempFolder folder;
  make_mixed_chain(folder, 5);
  const Opened opened(folder / "2");
  for (const Extent& extent : opened.extents()) {
    Bytes content(extent.guest.size());
    REQUIRE(opened.chain->read(extent.guest.begin, content));
    if (extent.zero) {
      CHECK(content == Bytes(content.size()));
    } else if (extent.has_host) {
      Bytes host(content.size());
      const auto& layer = opened.chain->layers()[extent.layer];
      REQUIRE(io::read_zero_extended(layer.qcow2().file(), extent.host, host));
      CHECK(content == host);
    }
  }
}

TEST_CASE("map: of an empty or nearly empty huge image costs nothing") {
  const TempFolder folder;
  ImageOptions options;
  options.size = 1ULL << 50;
  ImageBuilder(options).data_hole(1ULL << 30).build().write_to(folder / "huge");
  CHECK(Opened(folder / "huge").extents(2).size() == 3);
  options.backing_file = "huge";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "top");
  CHECK(Opened(folder / "top").extents(2).size() == 3);
  testing::write_file(folder / "raw", "x");
  std::filesystem::resize_file(folder / "raw", 1ULL << 42);
  options.backing_file = "raw";
  options.backing_format = "raw";
  options.size = 1ULL << 42;
  ImageBuilder(options).data_hole(1ULL << 20).build().write_to(folder / "top");
  CHECK(Opened(folder / "top").extents(2).size() == 4);
  // A raw file that ends inside a sector: what lies behind it needs no windows either.
  testing::write_file(folder / "raw", std::string(1000, 'x'));
  options.size = 1ULL << 50;
  ImageBuilder(options).build().write_to(folder / "top");
  CHECK(Opened(folder / "top").extents(2).size() == 3);
}

TEST_CASE("map: an entry that cannot be right is unreadable, and the rest is mapped") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{})
      .data(0, 'a')
      .raw_entry(1, 0x10200)
      .data(2, 'c')
      .build()
      .write_to(folder / "bad");
  const Opened opened(folder / "bad");
  for (const unsigned workers : {1U, 2U}) {
    const std::vector<Extent> extents = opened.extents(workers);
    REQUIRE(extents.size() == 4);
    CHECK(extents[1].unreadable == qcow2::Unreadable::entry);
    CHECK((extents[1].present && !extents[1].zero));
    CHECK(extents[1].guest == GuestRange{{65536}, {131072}});
    CHECK(extents[2].unreadable == qcow2::Unreadable::no);
  }
}

TEST_CASE("map: what a file ends before is unreadable from the first missing byte on") {
  const TempFolder folder;
  ImageOptions options;
  options.cluster_bits = 12;
  ImageBuilder base(options);
  for (std::uint64_t cluster = 0; cluster < 8; ++cluster)
    base.data(cluster, 'b');
  testing::Patient patient(base.build().flat());
  patient.move_to_end(4, 4);
  patient.resize(patient.bytes().size() - 3 * 4096 - 1000);
  testing::write_file(folder / "base", patient.bytes());
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).data(6, 't').build().write_to(folder / "top");
  const Opened opened(folder / "top");
  std::vector<GuestRange> lost;
  for (const Extent& extent : opened.extents()) {
    if (!extent.is_lost())
      continue;
    CHECK(extent.layer == 1);
    lost.push_back(extent.guest);
  }
  CHECK(lost == std::vector<GuestRange>{{{5 * 4096 - 1000}, {6 * 4096}}, {{7 * 4096}, {8 * 4096}}});
  Bytes byte(1);
  CHECK(opened.chain->read({5 * 4096 - 1001}, byte));
  CHECK_FALSE(opened.chain->read({5 * 4096 - 1000}, byte));
  CHECK(opened.chain->read({6 * 4096}, byte));
  const graph::Chain zeros =
      graph::Chain::make(*opened.top, {.unreadable_are_zeros = true}).value();
  REQUIRE(zeros.read({5 * 4096 - 1000}, byte));
  CHECK(byte[0] == std::byte{0});
}

TEST_CASE("map: a cluster with many holes that many entries name is handed on some at a time") {
  const TempFolder folder;
  ImageOptions options;
  options.size = 512 << 20;
  ImageBuilder builder(options);
  builder.data_hole(0);
  const testing::Patient patient(builder.build().flat());
  const std::uint64_t entry = patient.at(patient.l2_entry(0));
  for (std::uint64_t i = 1; i < 8192; ++i)
    builder.raw_entry(i, entry);
  builder.build().write_to(folder / "a");
  std::fstream file(folder / "a", std::ios::in | std::ios::out | std::ios::binary);
  for (std::uint64_t at = 0; at < 65536; at += 8192) {
    file.seekp(static_cast<std::streamoff>((entry & qcow2::offset_mask) + at));
    file << std::string(4096, 'x');
  }
  file.close();
  const Opened opened(folder / "a");
  const graph::Chain chain = graph::Chain::make(*opened.top, {.written = 0}).value();
  std::size_t most = 0;
  std::size_t count = 0;
  REQUIRE(analysis::map(chain, {{0}, {options.size}}, 1,
                        [&](std::span<const Extent> some) -> Result<void> {
                          most = std::max(most, some.size());
                          count += some.size();
                          return {};
                        }));
  CHECK(count == 8192 * 16);
  CHECK(most <= 8192);
}

TEST_CASE("map: a stream whose last sector the file cuts is lost only if it needs the rest") {
  const TempFolder folder;
  const Bytes cut = testing::damage("last-compressed-cluster-cut-in-its-last-sector").image();
  testing::write_file(folder / "cut", cut);
  // The same with all of the stream, but not with all of its sector.
  testing::Patient patient(cut);
  const std::uint64_t copy = cut.size() - 8;
  const std::uint64_t stream = patient.at(patient.l2_entry(30)) & ((1ULL << 58) - 1);
  patient.resize(copy + 100);
  for (std::uint64_t i = 0; i < 100; ++i)
    patient.set_number(copy + i, 1, patient.number(stream + i, 1));
  testing::write_file(folder / "whole", patient.bytes());
  const auto state_in = [&](const char* name) {
    const Opened opened(folder / name);
    for (const Extent& extent : opened.extents()) {
      if (extent.guest.begin.value <= 32 * 4096 && extent.guest.end.value > 32 * 4096)
        return extent.unreadable;
    }
    return qcow2::Unreadable::undecided;
  };
  CHECK(state_in("cut") == qcow2::Unreadable::past_end);
  CHECK(state_in("whole") == qcow2::Unreadable::no);
}

TEST_CASE("map: tables that are not in the file are one extent, however many there are") {
  const TempFolder folder;
  ImageOptions options;
  options.cluster_bits = 21;
  options.size = 1ULL << 60;  // 2,097,152 L1 entries
  testing::Patient patient(ImageBuilder(options).data(0, 'b').build().flat());
  for (std::uint64_t i = 1; i < 2097152; ++i)
    patient.set(patient.l1_entry(i), (1ULL << 50) + (i << 21));
  testing::write_file(folder / "base", patient.bytes());
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).data(262144 * 5, 't').build().write_to(folder / "top");
  const std::vector<Extent> extents = Opened(folder / "top").extents(2);
  REQUIRE(extents.size() == 5);
  CHECK(extents[2].unreadable == qcow2::Unreadable::table);
  CHECK(extents[2].guest.begin.value == 1ULL << 39);
  CHECK(extents[3].layer == 0);
  CHECK(extents[4].guest.end.value == options.size);
}
