// SPDX-License-Identifier: MIT
// Damaged and hostile images by recipe. None may crash, hang or be answered with an invention:
// either the answer is qemu-img's, or it is an error of ours that says where.
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "process.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <fstream>
#include <random>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::run_coldchain;
using testing::run_in;
using testing::TempFolder;

namespace {

ImageBuilder healthy() {
  ImageOptions options;
  options.size = 8 << 20;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 100; cluster += 3)
    builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
  builder.zero(1).compressed(2, 'c').bitmap("b", 2).snapshot("1", "s");
  return builder;
}

struct Recipe {
  const char* what;
  ImageBuilder image;
  const char* expected;  // part of the message
};

ImageBuilder patched(const std::function<void(qcow2::Header&)>& patch) {
  ImageBuilder builder = healthy();
  builder.patch_header(patch);
  return builder;
}

// qemu-img's map, without what coldchain adds: ranges that cannot be read.
nlohmann::ordered_json without_ours(const std::string& map) {
  nlohmann::ordered_json extents = nlohmann::ordered_json::parse(map);
  for (nlohmann::ordered_json& extent : extents)
    extent.erase("coldchain");
  return extents;
}

}  // namespace

TEST_CASE("damaged: each recipe is refused by map with the structure and the number") {
  std::vector<Recipe> recipes = {
      {"L1 table past the end", patched([](qcow2::Header& h) { h.l1_table_offset = 1ULL << 40; }),
       "Active L1 table at 0x1000000000"},
      {"L1 table unaligned", patched([](qcow2::Header& h) { h.l1_table_offset += 8; }),
       "Active L1 table offset invalid"},
      {"L1 table too small", patched([](qcow2::Header& h) { h.size = 1ULL << 40; }),
       "L1 table is too small"},
      {"L1 table too large", patched([](qcow2::Header& h) { h.l1_size = 0xffffffff; }),
       "Active L1 table too large"},
      {"cluster size of 256", patched([](qcow2::Header& h) { h.cluster_bits = 8; }),
       "Unsupported cluster size: 2^8"},
      {"cluster size of 4 MiB", patched([](qcow2::Header& h) { h.cluster_bits = 22; }),
       "Unsupported cluster size: 2^22"},
      {"no refcount table", patched([](qcow2::Header& h) { h.refcount_table_clusters = 0; }),
       "does not contain a reference count table"},
      {"refcount width", patched([](qcow2::Header& h) { h.refcount_order = 7; }),
       "may not exceed 64 bits"},
      {"too many snapshots", patched([](qcow2::Header& h) { h.nb_snapshots = 70000; }),
       "Snapshot table too large"},
      {"unknown feature", patched([](qcow2::Header& h) { h.incompatible_features |= 1ULL << 33; }),
       "Unsupported qcow2 feature(s): Unknown incompatible feature: 200000000"},
      {"backing name too long", patched([](qcow2::Header& h) {
         h.backing_file_offset = 4096;
         h.backing_file_size = 1024;
       }),
       "Backing file name too long"},
      {"backing name outside",
       patched([](qcow2::Header& h) { h.backing_file_offset = 1ULL << 33; }),
       "Invalid backing file offset"},
      {"L2 entry unaligned", healthy().raw_entry(9, 0x10200), "entry 9: host cluster offset"},
      {"encryption of another kind", patched([](qcow2::Header& h) { h.crypt_method = 9; }),
       "Unsupported encryption method 9"}};
  const TempFolder folder;
  for (const Recipe& recipe : recipes) {
    CAPTURE(recipe.what);
    recipe.image.build().write_to(folder / "bad");
    const auto ran = run_coldchain({"map", "--output=json", "-f", "qcow2", folder / "bad"});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(recipe.expected) != std::string::npos, ran.err);
  }
}

TEST_CASE("damaged: an image cut at any structure is read up to the cut or refused") {
  const TempFolder folder;
  const auto bytes = healthy().build();
  const Bytes flat = bytes.flat();
  for (const auto& [offset, piece] : bytes.pieces) {
    for (const std::uint64_t size : {offset, offset + 1, offset + piece.size() / 2}) {
      std::ofstream(folder / "cut", std::ios::binary)
          .write(reinterpret_cast<const char*>(flat.data()), static_cast<std::streamsize>(size));
      for (const char* verb : {"map", "info", "tree"}) {
        const auto ran = run_coldchain({verb, "-f", "qcow2", folder / "cut"});
        CHECK((ran.status == 0 || !ran.err.empty() || !ran.out.empty()));
      }
    }
  }
}

TEST_CASE(
    "damaged: flipped bytes of metadata never crash, and where both answer the answer is the "
    "same") {
  const bool oracles = testing::have_oracles();
  const TempFolder folder;
  const auto bytes = healthy().build();
  std::mt19937_64 random(11);
  int both = 0;
  for (int round = 0; round < 300; ++round) {
    Bytes flat = bytes.flat();
    // Somewhere in a table or in the header: pieces behind the data are metadata.
    auto piece = std::next(bytes.pieces.begin(),
                           static_cast<std::ptrdiff_t>(random() % bytes.pieces.size()));
    const std::uint64_t at =
        piece->first + random() % std::min<std::uint64_t>(piece->second.size(), 512);
    flat[at] ^= static_cast<std::byte>(1 + random() % 255);
    std::ofstream(folder / "flipped", std::ios::binary)
        .write(reinterpret_cast<const char*>(flat.data()),
               static_cast<std::streamsize>(flat.size()));
    CAPTURE(round);
    CAPTURE(at);
    (void)run_coldchain({"tree", folder / "flipped"});
    (void)run_coldchain({"info", "--output=json", folder / "flipped"});
    (void)run_coldchain({"map", "--snapshot", "1", folder / "flipped"});
    const auto mine = run_coldchain({"map", "--output=json", "-f", "qcow2", folder / "flipped"});
    if (!oracles || mine.status != 0)
      continue;
    const auto theirs =
        run_in(folder.path(), "qemu-img map --output=json -f qcow2 " + (folder / "flipped"));
    if (theirs.status != 0)
      continue;
    ++both;
    CHECK(without_ours(mine.out) == nlohmann::ordered_json::parse(theirs.out));
  }
  if (oracles)
    CHECK(both > 100);
}

TEST_CASE("damaged: tables that overlap are read as qemu-img reads them, or refused") {
  const TempFolder folder;
  const auto bytes = healthy().build();
  const qcow2::Header header = qcow2::decode_header(bytes.pieces.at(0)).value();
  for (const std::uint64_t other : {header.l1_table_offset, header.refcount_table_offset,
                                    header.snapshots_offset, std::uint64_t{0x10000}}) {
    Bytes flat = bytes.flat();
    const be64 entry(other);
    std::copy_n(bytes_of(entry).begin(), 8,
                flat.begin() + static_cast<std::ptrdiff_t>(header.l1_table_offset));
    std::ofstream(folder / "overlap", std::ios::binary)
        .write(reinterpret_cast<const char*>(flat.data()),
               static_cast<std::streamsize>(flat.size()));
    CAPTURE(other);
    const auto mine = run_coldchain({"map", "--output=json", "-f", "qcow2", folder / "overlap"});
    CHECK((mine.status == 0 || !mine.err.empty()));
    if (!testing::have_oracles())
      continue;
    const auto theirs =
        run_in(folder.path(), "qemu-img map --output=json -f qcow2 " + (folder / "overlap"));
    CHECK(mine.status == theirs.status);
    if (theirs.status == 0)
      CHECK(without_ours(mine.out) == nlohmann::ordered_json::parse(theirs.out));
  }
}

TEST_CASE("damaged: two images that back each other end at once") {
  const TempFolder folder;
  ImageOptions options;
  options.backing_format = "qcow2";
  options.backing_file = "b";
  ImageBuilder(options).build().write_to(folder / "a");
  options.backing_file = "a";
  ImageBuilder(options).build().write_to(folder / "b");
  const auto map = run_coldchain({"map", folder / "a"});
  CHECK(map.status == 1);
  const std::string sentence =
      "coldchain: Backing file '" + (folder / "a") + "' creates an infinite loop. ";
  CHECK(map.err.starts_with(sentence));
  CHECK(map.err.find("already in the chain") != std::string::npos);
  CHECK(run_coldchain({"info", "--backing-chain", folder / "a"}).err.starts_with(sentence));
  CHECK(run_coldchain({"tree", folder / "a"}).status == 1);
  CHECK(run_coldchain({"info", "--backing-chain", folder / "a"}).status == 1);
  CHECK(run_coldchain({"info", folder / "a"}).status == 0);
}
