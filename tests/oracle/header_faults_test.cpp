// SPDX-License-Identifier: MIT
// Headers with one wrong field and with several, against qemu-img: where both refuse to open an
// image, our message begins with QEMU's words. Where only one of them does, the case belongs to a
// class that docs/differences.md names.
#include "image_builder.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <map>
#include <random>

#include <fmt/format.h>

using namespace coldchain;
using testing::Patient;
using testing::TempFolder;

namespace {

struct Field {
  const char* name;
  std::uint64_t offset;
  unsigned bytes;
  std::vector<std::uint64_t> values;
};

constexpr std::uint64_t most = ~std::uint64_t{0};
constexpr std::uint64_t half = 1ULL << 63;
constexpr std::uint64_t max_offset = half - (1ULL << 30);  // that QEMU reads at
constexpr std::uint64_t version3_begin = 72;

const std::vector<std::uint64_t> places = {
    0, 1, 512, 0x1000, 0x10000, 0x1'0001, 1ULL << 40, max_offset - 0x10000, half - 0x10000, most};

const std::vector<Field>& fields() {
  static const std::vector<Field> all = {
      {"version", 4, 4, {0, 1, 2, 4, 0xffff'ffff}},
      {"backing_file_offset", 8, 8, {1, 104, 200, 0x1000, 0x1'0000, 0x1'0001, most}},
      {"backing_file_size", 16, 4, {0, 1, 1023, 1024, 0xffff'ffff}},
      {"cluster_bits", 20, 4, {0, 8, 9, 13, 21, 22, 0xffff'ffff}},
      {"size", 24, 8, {0, 1, 1ULL << 29, 1ULL << 40, 1ULL << 62, max_offset, most - 0xffff, most}},
      {"crypt_method", 32, 4, {1, 2, 3, 0x8000'0000, 0xffff'ffff}},
      {"l1_size", 36, 4, {0, 2, 1 << 22, (1 << 22) + 1, 0xffff'ffff}},
      {"l1_table_offset", 40, 8, places},
      {"refcount_table_offset", 48, 8, places},
      {"refcount_table_clusters", 56, 4, {0, 2, 128, 129, 0xffff'ffff}},
      {"nb_snapshots", 60, 4, {1, 65536, 65537, 0xffff'ffff}},
      {"snapshots_offset", 64, 8, places},
      {"incompatible_features", 72, 8, {1, 2, 4, 8, 16, 32, 1ULL << 63}},
      {"compatible_features", 80, 8, {2, most}},
      {"autoclear_features", 88, 8, {1, 2, 4, most}},
      {"refcount_order", 96, 4, {0, 6, 7, 63, 64, 0xffff'ffff}},
      {"header_length", 100, 4, {0, 103, 105, 112, 0x1'0000, 0x1'0001, 0xffff'ffff}},
      {"compression_type", 104, 1, {1, 2, 255}},
      {"type of the first extension", 112, 4, {0, 0xe279'2aca, 0x2385'2875, 0x0537'be77, 1}},
      {"length of the first extension", 116, 4, {0, 8, 15, 16, 24, 0x1'0000, 0xffff'ffff}},
  };
  return all;
}

// How a case ends. Each kind of difference has a row in docs/differences.md.
enum class Class {
  both_open,
  same_words,
  encrypted,          // "encrypted images", "bitmaps or a LUKS header for which QEMU refuses…"
  unknown_features,   // "unknown incompatible features"
  bad_snapshots,      // "damaged snapshot table"
  refused_extension,  // "header extension for which QEMU refuses an image"
  refused_bitmaps,    // "bitmaps or a LUKS header for which QEMU refuses an image"
  data_file,          // "`check` with a backing or data file that cannot be opened"
  data_file_bit,      // "`info` of an image with the bit data-file-raw…"
  backing_file,       // "names in human output", "messages"
  none,               // a difference without a row
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// What stands behind "Could not open 'x': ".
std::string words(const std::string& err) {
  const std::string frame = "Could not open 'x': ";
  std::size_t at = err.find(frame);
  while (at != std::string::npos && err.compare(at + frame.size(), frame.size(), frame) == 0)
    at += frame.size();  // qemu-img repeats it
  if (at == std::string::npos)
    return "";
  const std::string rest = err.substr(at + frame.size());
  return rest.substr(0, rest.find('\n'));
}

// We describe or check what qemu-img refuses with these words.
Class class_of_refusal(const std::string& theirs) {
  if (has(theirs, "encrypt.key-secret") || has(theirs, "LUKS") || has(theirs, "CRYPTO header for"))
    return Class::encrypted;
  if (theirs.starts_with("Unsupported qcow2 feature(s)"))
    return Class::unknown_features;
  if (has(theirs, "napshot table"))
    return Class::bad_snapshots;
  if (has(theirs, "bitmap"))
    return Class::refused_bitmaps;
  if (has(theirs, "CRYPTO header extension") || has(theirs, "Encryption header offset"))
    return Class::refused_extension;
  if (has(theirs, "'data-file' is required"))
    return Class::data_file;
  return has(theirs, "backing file") ? Class::backing_file : Class::none;
}

Class class_of(const std::string& verb, const std::string& theirs, const std::string& mine) {
  if (theirs.empty() && mine.empty())
    return Class::both_open;
  if (mine.empty())
    return class_of_refusal(theirs);
  if (theirs.empty())
    return verb == "info" && mine.starts_with("data-file-raw requires a data file")
               ? Class::data_file_bit
               : Class::none;
  if (mine.starts_with(theirs))
    return Class::same_words;
  const std::string of_backing = "Could not open backing file: ";
  return theirs.starts_with(of_backing) && mine.starts_with(of_backing) ? Class::backing_file
                                                                        : Class::none;
}

Class compare(const TempFolder& folder, const std::string& verb) {
  const auto theirs = testing::run_in(folder.path(), "qemu-img " + verb + " -f qcow2 x");
  const auto mine = testing::run_coldchain_in(folder.path(), {verb, "-f", "qcow2", "x"});
  const std::string their_words = words(theirs.err);
  const std::string my_words = words(mine.err);
  CAPTURE(verb);
  CAPTURE(theirs.status);
  CAPTURE(theirs.err);
  CAPTURE(mine.err);
  const Class found = class_of(verb, their_words, my_words);
  CHECK(found != Class::none);
  if (found == Class::same_words)
    CHECK(mine.status == theirs.status);
  return found;
}

Bytes sound(std::uint32_t version, bool has_backing_file) {
  testing::ImageOptions options;
  options.version = version;
  options.backing_file = has_backing_file ? "base" : "";
  options.backing_format = has_backing_file ? "raw" : "";
  testing::ImageBuilder builder(options);
  return builder.data(0, 'd').snapshot("1", "one").build().flat();
}

std::string text_of(const std::map<Class, int>& tally) {
  std::string text;
  for (const auto& [found, count] : tally)
    text += fmt::format(" {}:{}", static_cast<int>(found), count);
  return text;
}

}  // namespace

TEST_CASE("oracle: a header with one wrong field is refused with QEMU's words in front") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(1 << 20, 'b'));
  std::map<Class, int> tally;
  for (const std::uint32_t version : {2U, 3U}) {
    const Bytes image = sound(version, version == 3);
    for (const Field& field : fields()) {
      if (version == 2 && field.offset >= version3_begin)
        continue;
      for (const std::uint64_t value : field.values) {
        CAPTURE(version);
        CAPTURE(field.name);
        CAPTURE(value);
        Patient patient(image);
        patient.set_number(field.offset, field.bytes, value);
        testing::write_file(folder / "x", patient.bytes());
        // Each process takes a while: version 2 is left to `check`, which asks for less.
        ++tally[compare(folder, version == 2 ? "check" : "info")];
      }
    }
  }
  MESSAGE("classes:" << text_of(tally));
  CHECK(tally[Class::same_words] > 90);
}

TEST_CASE("oracle: of several wrong header fields the one that QEMU reports is reported") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(1 << 20, 'b'));
  std::map<Class, int> tally;
  testing::for_each_seed(150, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const std::uint32_t version = random() % 4 == 0 ? 2 : 3;
    Patient patient(sound(version, random() % 2 == 0));
    std::string faults;
    for (std::uint64_t i = 0; i < 2 + seed % 2; ++i) {
      const Field& field = fields()[random() % (version == 2 ? 12 : fields().size())];
      const std::uint64_t value = field.values[random() % field.values.size()];
      patient.set_number(field.offset, field.bytes, value);
      faults += fmt::format(" {}={:#x}", field.name, value);
    }
    CAPTURE(faults);
    testing::write_file(folder / "x", patient.bytes());
    ++tally[compare(folder, seed % 3 == 0 ? "check" : "info")];
  });
  MESSAGE("classes:" << text_of(tally));
  CHECK(tally[Class::same_words] > 90);
}
