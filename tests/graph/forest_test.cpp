// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/graph/forest.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::graph;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

void make(const std::string& path, const std::string& backing,
          const std::string& format = "qcow2") {
  ImageOptions options;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : format;
  ImageBuilder(options).data(0, 1).build().write_to(path);
}

Forest scanned(const std::string& folder, unsigned workers = 2, io::OpenPolicy policy = {}) {
  const auto files = io::system_files(policy).value();
  return scan(*files, policy, {folder}, workers, [](const std::string&, const Node&) {}).value();
}

const ForestImage& image(const Forest& forest, const std::string& path) {
  for (const ForestImage& candidate : forest.images) {
    if (candidate.path == path)
      return candidate;
  }
  FAIL("no image " << path);
  return forest.images.front();
}

}  // namespace

TEST_CASE("scan: knows who backs whom, through folders and links, with any number of workers") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "sub");
  testing::write_file(folder / "base.raw", std::string(65536, 'x'));
  testing::write_file(folder / "notes.txt", "not an image");
  make(folder / "a", "base.raw", "raw");
  make(folder / "sub/b", "../a");
  make(folder / "sub/c", "link");
  std::filesystem::create_symlink("../a", folder / "sub/link");
  make(folder / "alone", "");
  for (const unsigned workers : {1U, 4U}) {
    const Forest forest = scanned(folder.path(), workers);
    CHECK(forest.images.size() == 5);
    CHECK(forest.roots.size() == 2);
    CHECK(forest.other_files == 1);
    CHECK(image(forest, folder / "a").overlays.size() == 2);
    CHECK(image(forest, folder / "base.raw").overlays.size() == 1);
    CHECK(forest.images[*image(forest, folder / "sub/c").backing].path == folder / "a");
  }
}

TEST_CASE("scan: a base outside the folder is shown as such; a missing one is a finding") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  make(folder / "outside", "");
  make(folder / "in/a", "../outside");
  make(folder / "in/b", "none");
  const Forest forest = scanned(folder / "in");
  CHECK_FALSE(image(forest, folder / "in/../outside").in_scan);
  CHECK(image(forest, folder / "in/a").in_scan);
  REQUIRE(image(forest, folder / "in/b").findings.size() == 1);
  CHECK(image(forest, folder / "in/b").findings[0].code == finding::Code::link_missing);
}

TEST_CASE("scan: a loop is cut once and told") {
  const TempFolder folder;
  make(folder / "a", "b");
  make(folder / "b", "c");
  make(folder / "c", "a");
  make(folder / "leaf", "b");
  const Forest forest = scanned(folder.path());
  CHECK(forest.roots.size() == 1);
  std::size_t loops = 0;
  for (const ForestImage& candidate : forest.images)
    loops += candidate.findings.empty() ? 0 : 1;
  CHECK(loops == 1);
}

TEST_CASE("scan: a data file is known as such and is nobody's image") {
  const TempFolder folder;
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder builder(options);
  builder.data(0, 1).build().write_to(folder / "top");
  builder.data_file().write_to(folder / "data");
  const Forest forest = scanned(folder.path());
  REQUIRE(forest.images.size() == 2);
  CHECK(image(forest, folder / "data").data_file_of.size() == 1);
  CHECK(forest.other_files == 0);
}

TEST_CASE("scan: an image with a broken header is listed with a finding") {
  const TempFolder folder;
  testing::write_file(folder / "broken",
                      std::string("QFI\xfb\0\0\0\3", 8) + std::string(600, '\xff'));
  const Forest forest = scanned(folder.path());
  REQUIRE(forest.images.size() == 1);
  CHECK_FALSE(forest.images[0].is_open);
  CHECK(forest.images[0].findings[0].code == finding::Code::image_unreadable);
}

TEST_CASE("scan: nothing is followed under no-follow; a missing folder is told") {
  const TempFolder folder;
  make(folder / "a", "none");
  io::OpenPolicy policy;
  policy.follow = false;
  CHECK(scanned(folder.path(), 1, policy).images[0].findings.empty());
  CHECK(scanned(folder / "none").unreadable.size() == 1);
}
