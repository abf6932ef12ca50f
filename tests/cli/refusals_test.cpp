// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "fake_world.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <filesystem>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::TempFolder;

namespace {

std::ptrdiff_t lines_with(const std::string& text, const std::string& words) {
  std::ptrdiff_t count = 0;
  for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1))
    ++count;
  return count;
}

}  // namespace

TEST_CASE(
    "info, map, measure, tree: an image that QEMU refuses is told in one line, with status 1") {
  const TempFolder folder;
  for (const char* name : {"second-bitmap-table-of-another-size", "second-bitmap-table-unaligned",
                           "bitmaps-less-than-entries", "bitmaps-more-than-entries",
                           "bitmap-extra-data", "bitmap-name-twice", "luks-without-header"}) {
    CAPTURE(name);
    testing::write_file(folder / "x", testing::damage(name).image());
    for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
             {"info"}, {"map", "--output=json"}, {"measure", "-O", "qcow2"}, {"tree"}}) {
      CAPTURE(verb.front());
      std::vector<std::string> command = verb;
      command.emplace_back("x");
      const Ran ran = testing::run_coldchain_in(folder.path(), command);
      CHECK(ran.status == 1);
      CHECK_FALSE(ran.out.empty());
      CHECK(std::count(ran.err.begin(), ran.err.end(), '\n') == 1);
      CHECK_MESSAGE(ran.err.find("QEMU refuses the image; 'coldchain check " + (folder / "x") +
                                 "' lists the errors") != std::string::npos,
                    ran.err);
    }
    CHECK(testing::run_coldchain_in(folder.path(), {"tree", "."}).err.find("check ./x'") !=
          std::string::npos);
  }
}

TEST_CASE("map: a layer below that QEMU refuses is told under its own name, once") {
  const TempFolder folder;
  testing::write_file(folder / "a:b", testing::damage("bitmap-extra-data").image());
  ImageOptions options;
  options.backing_file = "./a:b";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "top");
  const Ran ran = testing::run_coldchain_in(folder.path(), {"map", "top"});
  CHECK(ran.status == 1);
  CHECK(lines_with(ran.err, "QEMU refuses the image") == 1);
  CHECK_MESSAGE(ran.err.find("check " + (folder / "a:b")) != std::string::npos, ran.err);
  // Of the top alone, that layer is not looked at.
  CHECK(testing::run_coldchain_in(folder.path(), {"info", "top"}).status == 0);
  CHECK(testing::run_coldchain_in(folder.path(), {"info", "--backing-chain", "top"}).status == 1);
}
