// SPDX-License-Identifier: MIT
// check against qemu-img check: the same messages, numbers and status on images with flipped
// metadata and on every recipe.
#include "damage_extensions.hpp"
#include "flipped_images.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include <coldchain/qcow2/header.hpp>

#include <fmt/format.h>

using namespace coldchain;
using testing::TempFolder;

namespace {

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
    for (const char* start : {"host 0x", "guest 0x"})  // of clusters that are used twice
      is_other = is_other || line.starts_with(start);
    for (const char* note : {" orphan-table: ", " l2-table-empty: ", " bitmap-in-use (",
                             " lost-snapshot: ", " l2-table-part-empty: ", " mapped-past-disk (",
                             " zero-tail (", " image-behind-end ("})
      is_other = is_other || line.find(note) != std::string::npos;
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
    // docs/differences.md: what leaks where tables are lost may be the data.
    if (line.starts_with("They may hold lost data"))
      line = "This means waste of disk space, but no harm to data.";
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
    CHECK((mine.status == 1 || theirs.err.find("encrypt.key-secret") != std::string::npos));
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

}  // namespace

TEST_CASE("oracle: check of flipped metadata says what qemu-img check says, or more") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  const TempFolder folder;
  testing::for_each_seed(500, [&](std::uint64_t seed) {
    testing::write_file(folder / "x", testing::flipped_image(static_cast<int>(seed)));
    compare(folder);
  });
}

TEST_CASE("oracle: check of every recipe says what qemu-img check says, or more") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "data", std::string(4 << 20, 'd'));
  for (const testing::Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    testing::write_file(folder / "x", damage.image());
    compare(folder);
  }
}

TEST_CASE("oracle: what qemu-img refuses to open for a header extension is refused by every verb") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  for (const testing::Damage& damage : testing::extension_damages()) {
    CAPTURE(damage.name);
    testing::write_file(folder / "x", damage.image());
    const auto theirs = testing::run_in(folder.path(), "qemu-img check -f qcow2 x");
    CHECK(theirs.status == 1);
    CHECK(theirs.err.find("Could not open") != std::string::npos);
    // A LUKS header that is destroyed is damage; one that QEMU does not find, a failed check.
    const int status = damage.name == "encryption-header-is-not-luks" ? 2 : 1;
    CHECK(testing::run_coldchain_in(folder.path(), {"check", "-f", "qcow2", "x"}).status == status);
    for (const char* verb : {"info", "map", "measure", "tree"})
      CHECK(testing::run_coldchain_in(folder.path(), {verb, "-f", "qcow2", "x"}).status == 1);
    CHECK(testing::run_coldchain_in(folder.path(), {"rebase", "-u", "-b", "", "-f", "qcow2", "x"})
              .status == 1);
  }
}

TEST_CASE("oracle: bitmaps that qemu-img accepts or refuses are so for every verb that looks") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  const auto compare_with = [&](const std::string& theirs, const std::vector<std::string>& mine) {
    CAPTURE(theirs);
    const int status = testing::run_in(folder.path(), theirs + " -f qcow2 x").status;
    std::vector<std::string> command = mine;
    command.insert(command.end(), {"-f", "qcow2", "x"});
    CHECK(testing::run_coldchain_in(folder.path(), command).status == status);
  };
  int count = 0;
  for (const testing::Damage& damage : testing::damages()) {
    if (damage.name.find("bitmap") == std::string::npos)
      continue;
    CAPTURE(damage.name);
    ++count;
    testing::write_file(folder / "x", damage.image());
    compare_with("qemu-img info", {"info"});
    compare_with("qemu-img map", {"map"});
    compare_with("qemu-img map", {"tree"});
    compare_with("qemu-img measure -O qcow2", {"measure", "-O", "qcow2"});
  }
  CHECK(count > 20);
}

TEST_CASE("oracle: a pointer to a LUKS header that is too short is refused as by qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(testing::create_encrypted(folder.path(), "sound", "luks"));
  const std::string sound = testing::read_file(folder / "sound");
  for (const std::uint64_t length : {0U, 1U, 0x200U, 592U, 4096U}) {
    CAPTURE(length);
    testing::Patient patient(Bytes(text_bytes(sound).begin(), text_bytes(sound).end()));
    patient.set_header([&](qcow2::Header& header) {
      for (qcow2::Extension& extension : header.extensions) {
        const be64 number(length);
        if (extension.type == qcow2::extension::encryption_header)
          std::copy_n(bytes_of(number).begin(), 8, extension.data.begin() + 8);
      }
    });
    testing::write_file(folder / "x", patient.bytes());
    const int status = testing::run_in(folder.path(), "qemu-img info x").status;
    CHECK(status == (length < 592 ? 1 : 0));
    for (const char* verb : {"info", "tree"})
      CHECK(testing::run_coldchain_in(folder.path(), {verb, "x"}).status == status);
  }
}
