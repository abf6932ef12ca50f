// SPDX-License-Identifier: MIT
// check against qemu-img check: the same messages, numbers and status on images with flipped
// metadata and on every recipe.
#include "damage.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include <coldchain/qcow2/tables.hpp>

#include <fmt/format.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

void write_image(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

// Lines of qemu-img's messages: without ours, and without what qemu-img says about itself.
std::vector<std::string> messages(const std::string& text) {
  std::istringstream lines(text);
  std::vector<std::string> kept;
  for (std::string line; std::getline(lines, line);) {
    // This one has no line break behind it.
    const std::string hint = "run 'qemu-img check -r' on the image file to fix.";
    if (const std::size_t at = line.find(hint); at != std::string::npos)
      line.erase(0, at + hint.size());
    bool is_other = line.empty();
    for (const char* start : {"qcow2:", "qemu-img:", "coldchain:", "corruption ", "leak ", "fatal ",
                              "WARNING:", "You can force-remove"})
      is_other = is_other || line.starts_with(start);
    if (!is_other)
      kept.push_back(line);
  }
  return kept;
}

// The numbers of a summary: qemu-img's lines, without what only we say.
std::vector<std::string> summary(const std::string& text) {
  std::istringstream lines(text);
  std::vector<std::string> kept;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.find("qemu-img does not look for") == std::string::npos &&
        line != "No errors were found on the image.")
      kept.push_back(line);
  }
  return kept;
}

// 0 clean, 3 leaks, 2 corrupt, 1 could not be checked.
int badness(int status) {
  return status == 0 ? 0 : status == 3 ? 1 : status == 2 ? 2 : 3;
}

void compare(const TempFolder& folder) {
  const auto theirs = testing::run_in(folder.path(), "qemu-img check -f qcow2 x");
  const auto mine = testing::run_coldchain_in(folder.path(), {"check", "-f", "qcow2", "x"});
  CAPTURE(theirs.err.substr(0, 2000));
  CAPTURE(mine.err.substr(0, 2000));
  if (theirs.err.find("Could not open") != std::string::npos) {
    // Ours may open it and say what is wrong; of encrypted images it needs no key.
    CHECK((mine.status != 0 || theirs.err.find("encrypt.key-secret") != std::string::npos));
    return;
  }
  if (theirs.err.find("Cannot allocate memory") != std::string::npos) {
    CHECK(mine.status != 0);  // a negative offset to it; to us a place past the end of the file
    return;
  }
  CHECK(badness(mine.status) >= badness(theirs.status));
  if (theirs.out.empty())
    return;  // it has given up, and ours says more
  CHECK(messages(mine.err) == messages(theirs.err));
  CHECK(summary(mine.out) == summary(theirs.out));
  if (mine.out.find("No errors were found") != std::string::npos)
    CHECK(theirs.status == 0);
}

std::vector<ImageBuilder> sound_images() {
  std::vector<ImageBuilder> images;
  const auto add = [&](ImageOptions options, auto&& fill) {
    options.size = 2 << 20;
    ImageBuilder builder(options);
    for (std::uint64_t cluster = 0; cluster < 9; ++cluster)
      builder.data(cluster, 'd');
    fill(builder);
    images.push_back(builder);
  };
  const auto nothing = [](ImageBuilder&) {};
  ImageOptions small;
  small.cluster_bits = 12;
  add(small, [](ImageBuilder& b) { b.zero(9).zero_reserved(10).compressed(20, 'c'); });
  add(small, [](ImageBuilder& b) { b.snapshot("1", "one").data(30, 'e').snapshot("2", "two"); });
  add(small, [](ImageBuilder& b) { b.bitmap("b", 2); });
  ImageOptions large;
  add(large, nothing);
  for (const std::uint32_t order : {0U, 3U, 6U}) {
    ImageOptions wide = small;
    wide.refcount_order = order;
    add(wide, nothing);
  }
  ImageOptions old = small;
  old.version = 2;
  old.cluster_bits = 9;
  add(old, nothing);
  ImageOptions extended = small;
  extended.cluster_bits = 14;
  extended.extended_l2 = true;
  extended.size = 2 << 20;
  images.push_back(ImageBuilder(extended).subclusters(0, 0xff, 0xff00, 'x').compressed(2, 'c'));
  return images;
}

// Flips bits, sets bytes and writes plausible entries somewhere in the metadata.
Bytes flipped(const testing::SparseBytes& image, std::mt19937_64& random) {
  Bytes bytes = image.flat();
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places = {{0, 112}};
  const qcow2::Header header = qcow2::decode_header(bytes).value();
  const testing::Patient patient(bytes);
  places.emplace_back(header.l1_table_offset, header.l1_size * 8);
  places.emplace_back(patient.at(patient.l1_entry()) & qcow2::offset_mask, 400);
  places.emplace_back(header.refcount_table_offset, 32);
  places.emplace_back(patient.at(patient.refcount_table_entry()), 128);
  if (header.nb_snapshots != 0)
    places.emplace_back(header.snapshots_offset, 64);
  for (std::uint64_t i = 0; i < 1 + random() % 3; ++i) {
    const auto [begin, size] = places[random() % places.size()];
    const std::uint64_t at = begin + random() % size;
    if (random() % 3 == 0) {
      bytes[at] ^= static_cast<std::byte>(1U << random() % 8);
    } else if (random() % 2 == 0) {
      bytes[at] = static_cast<std::byte>(random());
    } else {
      const std::uint64_t entry = random() % bytes.size() / 512 * 512 | (random() % 4) << 62;
      for (std::uint64_t byte = 0; byte < 8; ++byte)
        bytes[at / 8 * 8 + byte] = static_cast<std::byte>(entry >> (8 * (7 - byte)));
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("oracle: check of flipped metadata says what qemu-img check says, or more") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  const char* wanted = std::getenv("COLDCHAIN_ORACLE_CASES");
  const int rounds = wanted == nullptr ? 500 : std::atoi(wanted);
  const char* first = std::getenv("COLDCHAIN_ORACLE_FIRST");
  const int begin = first == nullptr ? 1 : std::atoi(first);
  const std::vector<ImageBuilder> images = sound_images();
  const TempFolder folder;
  for (int seed = begin; seed < begin + rounds; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    write_image(folder / "x", flipped(images[random() % images.size()].build(), random));
    compare(folder);
  }
}

TEST_CASE("oracle: check of every recipe says what qemu-img check says, or more") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "data", std::string(4 << 20, 'd'));
  for (const testing::Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    write_image(folder / "x", damage.image());
    compare(folder);
  }
}
