// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "other_user.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::run_coldchain;
using testing::TempFolder;

namespace {

// A raw base, an image on it, one on that, and one elsewhere that has the image as its base, too.
struct Family {
  TempFolder folder;
  Family() {
    std::filesystem::create_directories(folder / "images");
    std::filesystem::create_directories(folder / "elsewhere");
    testing::write_file(folder / "images/base.raw", std::string(1 << 20, 'x'));
    write("images/mid", "base.raw", "raw");
    write("images/top", "mid", "qcow2");
    write("elsewhere/other", folder / "images/mid", "qcow2");
    write("images/alone", "", "");
  }
  void write(const std::string& name, const std::string& backing, const std::string& format) const {
    ImageOptions options;
    options.backing_file = backing;
    options.backing_format = format;
    ImageBuilder(options).build().write_to(folder / name);
  }
};

std::vector<std::string> paths_in(const std::string& json) {
  std::vector<std::string> paths;
  const auto answer = nlohmann::json::parse(json);
  for (const auto& image : answer["dependents"])
    paths.push_back(std::filesystem::path(image["path"].get<std::string>()).filename());
  return paths;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("deps: lists direct and indirect dependents in all searched folders, and exits with 5") {
  const Family family;
  const std::string base = family.folder / "images/base.raw";
  const auto ran = run_coldchain(
      {"deps", "--scan", family.folder / "images", "--scan", family.folder / "elsewhere", base});
  CHECK(ran.status == 5);
  CHECK(has(ran.out, (family.folder / "images/mid") + "       its backing file\n"));
  CHECK(has(ran.out, "images/top       through " + (family.folder / "images/mid") + "\n"));
  CHECK(has(ran.out, "elsewhere/other  through " + (family.folder / "images/mid") + "\n"));
  CHECK(has(ran.out, "3 images depend on '" + base + "'."));
  CHECK(has(ran.out, "Searched: '" + (family.folder / "images") + "' '" +
                         (family.folder / "elsewhere") + "'\n"));
  CHECK_FALSE(has(ran.out, "alone"));
  const auto json = run_coldchain(
      {"deps", "--output=json", "--scan", family.folder.path(), family.folder / "images/mid"});
  CHECK(json.status == 5);
  CHECK(paths_in(json.out) == std::vector<std::string>{"other", "top"});
}

TEST_CASE("deps: exits with 0 only if everything was read, and says where it searched") {
  const Family family;
  const std::string top = family.folder / "images/top";
  const auto ran = run_coldchain({"deps", "--scan", family.folder.path(), top});
  CHECK(ran.status == 0);
  CHECK(ran.out == "No image in the searched folders depends on '" + top + "'.\nSearched: '" +
                       family.folder.path() + "'\n");
  const auto missing =
      run_coldchain({"deps", "--scan", family.folder.path(), "--scan", "/nowhere", top});
  CHECK(missing.status == 1);
  CHECK(has(missing.out, "not read: /nowhere: No such file or directory\n"));
  CHECK(has(missing.out, "but not all could be read"));
}

TEST_CASE("deps: without --scan, the image's own folder is searched, which proves nothing") {
  const Family family;
  const auto ran = run_coldchain({"deps", family.folder / "images/mid"});
  CHECK(ran.status == 5);
  CHECK(has(ran.out, "images/top"));
  CHECK_FALSE(has(ran.out, "elsewhere"));
  CHECK(has(ran.out, "Images in other folders may depend on it"));
  CHECK(run_coldchain({"deps", family.folder / "images/top"}).status == 0);
}

TEST_CASE("deps: an image whose chain is not known to its end may depend on it") {
  const Family family;
  const std::string top = family.folder / "images/top";
  const auto without = [&](const std::string& backing, const std::string& reason) {
    family.write("images/doubtful", backing, "qcow2");
    const auto ran = run_coldchain({"deps", "--scan", family.folder.path(), top});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(
        has(ran.out, "not followed: " + (family.folder / "images/doubtful") + ": " + reason),
        ran.out);
  };
  without("gone", "link-missing");
  without("nbd:localhost:10809", "link-not-local");
  testing::write_file(family.folder / "images/doubtful", "QFI\xfb");
  const auto cut = run_coldchain({"deps", "--scan", family.folder.path(), top});
  CHECK(cut.status == 1);
  CHECK(has(cut.out, "it begins like qcow2, but its header is not whole"));
  testing::write_file(family.folder / "images/doubtful", "KDMV" + std::string(1000, '\1'));
  const auto vmdk = run_coldchain({"deps", "--scan", family.folder.path(), top});
  CHECK(vmdk.status == 1);
  CHECK(has(vmdk.out, "doubtful: images of format vmdk are not read"));
  // Of an image that is known to depend on it, the rest does not matter: 5 comes before 1.
  CHECK(run_coldchain({"deps", "--scan", family.folder.path(), family.folder / "images/mid"})
            .status == 5);
}

TEST_CASE("deps: a folder that cannot be read is listed, and the status is 1" *
          doctest::skip(!testing::is_root())) {
  const Family family;
  std::filesystem::permissions(family.folder.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(family.folder / "elsewhere", std::filesystem::perms(0700));
  const testing::AsOtherUser other;
  const auto ran =
      run_coldchain({"deps", "--scan", family.folder.path(), family.folder / "images/top"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "elsewhere: Permission denied"));
}

TEST_CASE("deps: finds dependents by the file, whatever its names are") {
  const Family family;
  std::filesystem::create_hard_link(family.folder / "images/mid", family.folder / "second-name");
  std::filesystem::create_symlink(family.folder / "images/mid", family.folder / "link");
  for (const char* name : {"second-name", "link"}) {
    const auto ran = run_coldchain(
        {"deps", "--output=json", "--scan", family.folder / "images", family.folder / name});
    CHECK(ran.status == 5);
    CHECK(paths_in(ran.out) == std::vector<std::string>{"top"});
  }
}

TEST_CASE("deps: an image with its data in the file depends on it, and so does what lies above") {
  const Family family;
  ImageOptions options;
  options.data_file = "base.raw";
  ImageBuilder(options).build().write_to(family.folder / "images/alone");
  family.write("images/above", "alone", "qcow2");
  const auto ran = run_coldchain({"deps", family.folder / "images/base.raw"});
  CHECK(ran.status == 5);
  CHECK(has(ran.out, "images/alone  its data file\n"));
  CHECK(has(ran.out, "images/above  through " + (family.folder / "images/alone")));
}

TEST_CASE("deps: an image that names itself in a loop may depend on everything in it") {
  const Family family;
  family.write("images/one", "two", "qcow2");
  family.write("images/two", "one", "qcow2");
  const auto ran = run_coldchain({"deps", family.folder / "images/top"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "link-loop"));
  // The link that closes the loop counts, too.
  for (const char* name : {"one", "two"}) {
    const auto direct =
        run_coldchain({"deps", "--output=json", family.folder / (std::string("images/") + name)});
    CHECK(direct.status == 5);
    CHECK(paths_in(direct.out) ==
          std::vector<std::string>{name == std::string("one") ? "two" : "one"});
  }
}

TEST_CASE("deps: an image that others record as raw may depend on what its header names") {
  const Family family;
  family.write("images/wrong", "mid", "raw");
  const auto ran = run_coldchain({"deps", family.folder / "images/base.raw"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "not followed: " + (family.folder / "images/mid") +
                         ": another image says that it is raw"));
  // An image that records the same file as qcow2 reads what the header names.
  CHECK(has(ran.out, "not followed: " + (family.folder / "images/top") +
                         ": it records its backing file as qcow2, and another image as raw"));
  // So may one outside of the folders.
  std::filesystem::create_directory(family.folder / "alone");
  family.write("alone/wrong", "../images/mid", "raw");
  const auto outside =
      run_coldchain({"deps", "--scan", family.folder / "alone", family.folder / "images/base.raw"});
  CHECK(outside.status == 1);
}

TEST_CASE("deps: a raw disk on which a guest made another format depends on nothing") {
  const Family family;
  testing::write_file(family.folder / "images/luks", "LUKS\xba\xbe" + std::string(65536, '\0'));
  family.write("images/over-luks", "luks", "raw");
  family.write("images/plain", "", "");  // names no file
  family.write("images/over-plain", "plain", "raw");
  const auto ran = run_coldchain({"deps", family.folder / "images/alone"});
  CHECK_MESSAGE(ran.status == 0, ran.out);
}

TEST_CASE("deps: a name on the network in a header that others record as raw is not followed") {
  const Family family;
  family.write("images/remote", "nbd://host/export", "raw");
  family.write("images/wrong", "remote", "raw");
  const auto ran = run_coldchain({"deps", family.folder / "images/alone"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "not followed: " + (family.folder / "images/remote") + ": another image"));
}

TEST_CASE("deps: a link that leads nowhere may hide a dependent") {
  const Family family;
  std::filesystem::create_symlink("/nonexistent/overlay", family.folder / "images/gone");
  std::filesystem::create_symlink("/proc/self/fd", family.folder / "images/fd");
  const auto ran = run_coldchain({"deps", "--scan", family.folder / "images", "--scan",
                                  family.folder / "images", family.folder / "images/alone"});
  CHECK(ran.status == 1);
  const std::string line =
      "not followed: " + (family.folder / "images/gone") + ": a symbolic link that leads nowhere\n";
  CHECK(has(ran.out, line));
  CHECK(ran.out.find(line) == ran.out.rfind(line));
  CHECK_FALSE(has(ran.out, "images/fd"));
}

TEST_CASE("deps: an image in a part of a file may depend on anything") {
  const Family family;
  family.write("images/inside",
               "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\",\"offset\":512,"
               "\"file\":{\"driver\":\"file\",\"filename\":\"" +
                   (family.folder / "images/base.raw") + "\"}}}",
               "");
  const auto ran = run_coldchain({"deps", family.folder / "images/top"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "not followed: " + (family.folder / "images/inside") +
                         ": its backing image lies in a part of a file"));
}

TEST_CASE("deps: a relative name in json: leads QEMU elsewhere if it runs elsewhere") {
  const Family family;
  family.write("images/relative",
               R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"alone"}})", "");
  CHECK(run_coldchain({"deps", family.folder / "images/alone"}).status == 5);
  const auto ran = run_coldchain({"deps", family.folder / "images/top"});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "link-relative-json"));
}

TEST_CASE("deps: takes the image as options, too") {
  const Family family;
  const auto ran = run_coldchain(
      {"deps", "--image-opts", "driver=qcow2,file.filename=" + (family.folder / "images/mid")});
  CHECK(ran.status == 5);
}

TEST_CASE("deps: answers for an image that is damaged or in use, and refuses what is no file") {
  const Family family;
  testing::write_file(family.folder / "images/mid", "QFI\xfb and no header");
  CHECK(run_coldchain({"deps", family.folder / "images/mid"}).status == 5);
  CHECK(run_coldchain({"deps", family.folder.path()}).status == 1);
  CHECK(run_coldchain({"deps", "--no-follow", family.folder / "images/mid"}).status == 1);
}

TEST_CASE("deps: a link to a folder outside of those that were searched is listed") {
  const Family family;
  std::filesystem::create_directory_symlink(family.folder / "elsewhere",
                                            family.folder / "images/more");
  const std::string top = family.folder / "images/top";
  const auto ran = run_coldchain({"deps", top});
  CHECK(ran.status == 1);
  CHECK(has(ran.out, "not followed: " + (family.folder / "images/more") +
                         ": a symbolic link to a folder that was not searched\n"));
  // Searched under its own name, it hides nothing.
  CHECK(run_coldchain({"deps", "--scan", family.folder.path(), top}).status == 0);
}
