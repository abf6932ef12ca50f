// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/graph/forest.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

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
  options.backing_format = backing.empty() ? std::string() : format;
  ImageBuilder(options).data(0, 1).build().write_to(path);
}

Forest scanned(const std::string& folder, unsigned workers = 2, io::OpenPolicy policy = {}) {
  const auto files = io::system_files(policy).value();
  return scan(*files, policy, {.folders = {folder}}, workers,
              [](const std::string&, const Node&) {})
      .value();
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
    CHECK(forest.others.size() == 1);
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

TEST_CASE("scan: a folder that cannot be read costs nothing but itself" *
          doctest::skip(::geteuid() == 0)) {
  const TempFolder folder;
  for (const char* name : {"a", "b", "sub", "z"})
    std::filesystem::create_directories(folder / name);
  for (const char* name : {"a/1", "b/2", "z/3"})
    make(folder / name, "");
  ::chmod((folder / "sub").c_str(), 0);
  const Forest forest = scanned(folder.path());
  ::chmod((folder / "sub").c_str(), 0700);
  CHECK(forest.images.size() == 3);
  REQUIRE(forest.unreadable.size() == 1);
  CHECK(forest.unreadable[0].message == (folder / "sub") + ": Permission denied");
}

TEST_CASE("scan: a link to an image outside is an image, a second name of one inside is not") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  make(folder / "outside", "");
  make(folder / "in/a", "");
  std::filesystem::create_symlink("../outside", folder / "in/link");
  std::filesystem::create_symlink("a", folder / "in/again");
  std::filesystem::create_hard_link(folder / "in/a", folder / "in/b");
  const Forest forest = scanned(folder / "in");
  REQUIRE(forest.images.size() == 2);
  CHECK(forest.images[0].path == folder / "in/a");
  CHECK(forest.images[1].path == folder / "in/link");
}

TEST_CASE("scan: a raw file keeps its second name, also if it begins like qcow2") {
  const TempFolder folder;
  testing::write_file(folder / "base.raw", std::string(65536, 'x'));
  make(folder / "like", "");  // begins like qcow2
  for (const char* name : {"base.raw", "like"}) {
    std::filesystem::create_hard_link(folder / name, folder / (std::string(name) + "2"));
    make(folder / (std::string("over-") + name), name, "raw");
  }
  const Forest forest = scanned(folder.path());
  CHECK(image(forest, folder / "base.raw").other_paths == std::vector{folder / "base.raw2"});
  CHECK(image(forest, folder / "like").other_paths == std::vector{folder / "like2"});
}

TEST_CASE(
    "scan: a raw file outside the folders is inspected as raw, even if it begins like qcow2") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  make(folder / "guest", "secret");
  make(folder / "in/top", "../guest", "raw");
  const io::OpenPolicy policy;
  const auto files = io::system_files(policy).value();
  std::vector<std::string> formats;
  const Forest forest = scan(*files, policy, {.folders = {folder / "in"}}, 1,
                             [&](const std::string& path, const Node& node) {
                               if (path.ends_with("guest"))
                                 formats.push_back(node.format);
                             })
                            .value();
  CHECK(formats == std::vector<std::string>{"raw"});
  CHECK(image(forest, folder / "in/../guest").unfollowed.has_value());
}

TEST_CASE("scan: an image is unused only if it was read and names no file") {
  const TempFolder folder;
  make(folder / "alone", "");
  make(folder / "remote", "nbd://host/export");
  make(folder / "undecided-a", "undecided-b", "raw");
  make(folder / "undecided-b", "undecided-a", "raw");
  make(folder / "damaged", "");
  std::filesystem::resize_file(folder / "damaged", 60);
  const Forest forest = scanned(folder.path());
  for (const ForestImage& candidate : forest.images)
    CHECK_MESSAGE(is_unused(candidate) == (candidate.path == folder / "alone"), candidate.path);
  io::OpenPolicy alone;
  alone.follow = false;
  for (const ForestImage& candidate : scanned(folder.path(), 1, alone).images)
    CHECK_FALSE(is_unused(candidate));
}

TEST_CASE("scan: a raw base in the folder is in the scan, however its overlay spells it") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  testing::write_file(folder / "in/base", std::string(1 << 20, 'x'));
  make(folder / "in/top", "../in/base", "raw");
  const Forest forest = scanned(folder / "in");
  REQUIRE(forest.images.size() == 2);
  CHECK(forest.images[0].in_scan);
  CHECK(forest.others.size() == 0);
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
  for (const ForestImage& candidate : forest.images) {
    for (const finding::Finding& finding : candidate.findings)
      loops += finding.code == finding::Code::link_loop ? 1 : 0;
  }
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
  CHECK(forest.others.size() == 0);
}

TEST_CASE(
    "scan: a file recorded as raw is raw whatever a guest wrote into it, in the folder or out") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  std::filesystem::create_directories(folder / "out");
  testing::write_file(folder / "secret", std::string(65536, 's'));
  for (const std::string place : {"in/guest", "out/guest"}) {
    make(folder / place, folder / "secret", "raw");
    make(folder / "in/top", "../" + place, "raw");
    const Forest forest = scanned(folder / "in");
    const ForestImage& top = image(forest, folder / "in/top");
    REQUIRE(top.backing.has_value());
    const ForestImage& guest = forest.images[*top.backing];
    CHECK(guest.format == "raw");
    CHECK_FALSE(guest.backing.has_value());
    CHECK(guest.findings.at(0).code == finding::Code::link_format_contradicts);
    for (const ForestImage& candidate : forest.images)
      CHECK(candidate.path != folder / "secret");
    std::filesystem::remove(folder / "in/guest");
  }
}

TEST_CASE("scan: what a guest wrote into its raw disk does not make another image raw") {
  const TempFolder folder;
  make(folder / "root", "");
  make(folder / "c", "root");
  make(folder / "a", "c", "raw");  // written by a guest: b records that it is raw
  make(folder / "b", "a", "raw");
  const Forest forest = scanned(folder.path());
  CHECK(image(forest, folder / "a").format == "raw");
  CHECK(image(forest, folder / "c").format == "qcow2");
  CHECK(image(forest, folder / "root").overlays.size() == 1);
}

TEST_CASE("scan: an image outside the folder can say that a file inside is raw") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  make(folder / "secret", "");
  make(folder / "in/guest", "../secret", "qcow2");
  make(folder / "mid", "in/guest", "raw");
  make(folder / "in/top", "../mid");
  const Forest forest = scanned(folder / "in");
  CHECK(image(forest, folder / "in/guest").format == "raw");
  for (const ForestImage& candidate : forest.images)
    CHECK(candidate.path.find("secret") == std::string::npos);
}

TEST_CASE("scan: where one image records raw and another qcow2, it is raw under any name") {
  for (const char* first : {"a", "c"}) {
    const TempFolder folder;
    std::filesystem::create_directories(folder / "in");
    make(folder / "shared", "");
    make(folder / "in/b", "../shared", "raw");
    make((folder / "in/") + first, "../shared");
    const Forest forest = scanned(folder / "in");
    const ForestImage& other = image(forest, (folder / "in/") + first);
    CHECK(forest.images[*other.backing].format == "raw");
    CHECK(other.findings.at(0).code == finding::Code::link_format_contradicts);
  }
}

TEST_CASE("scan: a data file that begins like qcow2 is what a guest wrote, too") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  make(folder / "secret", "");
  make(folder / "in/data", "../secret");
  ImageOptions options;
  options.data_file = "data";
  options.data_file_raw = true;
  ImageBuilder(options).build().write_to(folder / "in/top");
  const Forest forest = scanned(folder / "in");
  REQUIRE(forest.images.size() == 2);
  CHECK(image(forest, folder / "in/data").format == "raw");
}

TEST_CASE("scan: files that call each other raw are followed by nobody") {
  const TempFolder folder;
  make(folder / "a", "b", "raw");
  make(folder / "b", "a", "raw");
  make(folder / "c", "b");
  const Forest forest = scanned(folder.path());
  CHECK_FALSE(image(forest, folder / "a").backing.has_value());
  CHECK(image(forest, folder / "b").findings.at(0).code == finding::Code::link_roles_contradict);
}

TEST_CASE("scan: an overlay over a window of a file, or with its own chain below, says so") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(4 << 20, 'x'));
  make(folder / "window",
       "json:{\"driver\":\"raw\",\"offset\":65536,\"size\":1048576,"
       "\"file\":{\"driver\":\"file\",\"filename\":\"base\"}}",
       "");
  make(folder / "mid", "base", "raw");
  make(folder / "top",
       "json:{\"driver\":\"qcow2\",\"backing\":null,"
       "\"file\":{\"driver\":\"file\",\"filename\":\"mid\"}}",
       "");
  const Forest forest = scanned(folder.path());
  const auto codes = [&](const std::string& path) {
    std::vector<finding::Code> all;
    for (const finding::Finding& finding : image(forest, path).findings)
      all.push_back(finding.code);
    return all;
  };
  CHECK(codes(folder / "window") == std::vector{finding::Code::link_relative_json});
  CHECK(codes(folder / "top") ==
        std::vector{finding::Code::link_overrides, finding::Code::link_relative_json});
}

TEST_CASE("scan: sizes are compared as the guest sees them, in whole sectors") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string((1 << 20) - 1, 'x'));
  make(folder / "top", "base", "raw");
  CHECK(image(scanned(folder.path()), folder / "top").findings.empty());
}

TEST_CASE("scan: the recorded format stands above the driver of a json: name") {
  const TempFolder folder;
  make(folder / "base", "");
  make(folder / "top",
       "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"base\"}}", "raw");
  const Forest forest = scanned(folder.path());
  CHECK(image(forest, folder / "base").format == "raw");
}

TEST_CASE("scan: a file outside whose format nobody records is described and not followed") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  testing::write_file(folder / "secret", std::string(65536, 's'));
  make(folder / "guest", "secret", "raw");
  make(folder / "in/top", "../guest", "");
  const Forest forest = scanned(folder / "in");
  REQUIRE(forest.images.size() == 2);
  CHECK(forest.images[0].findings.at(0).code == finding::Code::link_probed_has_links);
  CHECK(forest.images[1].findings.at(0).code == finding::Code::link_format_not_recorded);
  io::OpenPolicy policy;
  policy.allow_probe = true;
  CHECK(scanned(folder / "in", 2, policy).images.size() == 3);
}

TEST_CASE("scan: a base whose format nobody records is probed by the name that a chain sees") {
  const TempFolder folder;
  const auto format_of = [&](const std::string& base, const std::string& backing) {
    testing::write_file(folder / base, std::string(65536, '\0'));
    make(folder / "top", backing, "");
    const auto files = io::system_files({}).value();
    OpenRequest request;
    request.name = folder / "top";
    const auto top = open(*files, {}, request).value();
    const std::string format = image(scanned(folder.path()), folder / base).format;
    CHECK(top->backing()->format == format);
    return format;
  };
  CHECK(format_of("x.dmg", "x.dmg") == "dmg");
  CHECK(format_of("x.dmg", "file:x.dmg") == "dmg");
  CHECK(format_of("x.dmg", "json:{\"file.filename\":\"x.dmg\"}") == "raw");
  CHECK(format_of(".dmg", "json:{\"file.filename\":\".dmg\"}") == "raw");
}

TEST_CASE("scan: layers of other sizes are noted as in a chain") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(65536, 'x'));
  make(folder / "top", "base", "raw");
  const Forest forest = scanned(folder.path());
  CHECK(image(forest, folder / "top").findings.at(0).code == finding::Code::overlay_longer);
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

TEST_CASE("scan: a long chain outside the folder is followed, and what its end says counts") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  std::filesystem::create_directories(folder / "out");
  constexpr int length = 300;
  for (int i = 0; i < length; ++i)
    make(folder / ("out/" + std::to_string(i)), std::to_string(i + 1));
  // The last says that an image in the folder is raw: what that one names is not an image's word.
  make(folder / ("out/" + std::to_string(length)), "../in/guest", "raw");
  make(folder / "in/top", "../out/0");
  make(folder / "in/guest", "../out/secret");
  make(folder / "out/secret", "");
  const Forest forest = scanned(folder / "in");
  CHECK(forest.images.size() == length + 3);
  CHECK(image(forest, folder / "in/guest").format == "raw");
  CHECK_FALSE(image(forest, folder / "in/guest").backing.has_value());
  CHECK(image(forest, folder / "in/guest").overlays.size() == 1);
}
