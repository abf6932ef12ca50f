// SPDX-License-Identifier: MIT
// The note of verbs that only look, and --evidence. Only root can make files of other users.
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "other_user.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

using namespace coldchain;
using testing::AsOtherUser;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::is_root;
using testing::Ran;
using testing::run_coldchain;
using testing::TempFolder;

namespace {

using Words = std::vector<std::string>;

constexpr time_t long_ago = 1000;

// The base belongs to root, and the top to the other user.
class Images {
 public:
  Images() {
    REQUIRE(::chmod(folder_.path().c_str(), 0755) == 0);
    ImageOptions options;
    ImageBuilder(options).data(0, 1).build().write_to(base());
    options.backing_file = "base";
    options.backing_format = "qcow2";
    ImageBuilder(options).data(1, 1).build().write_to(top());
    REQUIRE(::chown(top().c_str(), testing::other_user, testing::other_user) == 0);
    for (const std::string& path : {base(), top(), folder()}) {
      const timespec old[2] = {{long_ago, 0}, {2000, 0}};
      REQUIRE(::utimensat(AT_FDCWD, path.c_str(), old, 0) == 0);
    }
  }

  [[nodiscard]] std::string base() const { return folder_ / "base"; }
  [[nodiscard]] std::string top() const { return folder_ / "top"; }
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }

  [[nodiscard]] bool are_unread() const {
    for (const std::string& path : {base(), folder()}) {
      struct stat facts = {};
      REQUIRE(::stat(path.c_str(), &facts) == 0);
      if (facts.st_atim.tv_sec != long_ago)
        return false;
    }
    return true;
  }

 private:
  TempFolder folder_;
};

Ran run_as_other(const Words& words) {
  const AsOtherUser other;
  return run_coldchain(words);
}

std::string note_of(const std::string& path) {
  return "coldchain: note: the access time of '" + path +
         "' may change, because you are not its owner; --evidence refuses instead\n";
}

std::string refusal_of(const std::string& path) {
  return "coldchain: Could not open '" + path +
         "': reading it would change its access time, and --evidence forbids that; run the "
         "command as its owner or as root, or mount the file system read-only or with noatime\n";
}

std::vector<Words> looks_at(const std::string& image) {
  return {{"info", "--backing-chain", image},
          {"map", image},
          {"tree", image},
          {"check", "--backing-chain", image},
          {"measure", "-O", "qcow2", image},
          {"plan", "pull", image},
          {"plan", "repair", image},
          {"plan", "allocate", image},
          {"plan", "commit", image}};
}

Words with_evidence(Words words) {
  words.insert(words.end() - 1, "--evidence");
  return words;
}

}  // namespace

TEST_CASE("access times: a note says once where a look may change one, and all else is the same") {
  if (!is_root())
    return;
  for (std::size_t i = 0; i < looks_at("").size(); ++i) {
    const Images images;
    Words words = looks_at(images.top())[i];
    if (words[1] == "commit" || words[1] == "repair")
      continue;  // they list the folder, too
    CAPTURE(words[0] + " " + words[1]);
    const Ran as_root = run_coldchain(words);
    CHECK(images.are_unread());
    const Ran ran = run_as_other(words);
    CHECK(ran.status == as_root.status);
    CHECK(ran.out == as_root.out);
    CHECK(ran.err == as_root.err + note_of(images.base()));
  }
}

TEST_CASE("access times: one note is enough for the files of a folder") {
  if (!is_root())
    return;
  const Images images;
  const Ran ran = run_as_other({"tree", images.folder()});
  CHECK(ran.status == 0);
  CHECK(ran.err == "coldchain: note: the access times of '" + images.folder() +
                       "' and others may change, because you are not their owner; --evidence "
                       "refuses instead\n");
}

TEST_CASE("access times: with -q there is no note") {
  if (!is_root())
    return;
  const Images images;
  CHECK(run_as_other({"check", "-q", images.base()}).err.empty());
  CHECK(run_as_other({"plan", "pull", "-q", images.top()}).err.empty());
}

TEST_CASE("access times: a scan of a folder leaves them alone for the owner") {
  if (!is_root())
    return;
  const Images images;
  CHECK(run_coldchain({"tree", images.folder()}).err.empty());
  CHECK(run_coldchain({"check", "--evidence", images.folder()}).status == 0);
  CHECK(images.are_unread());
}

TEST_CASE("access times: with --evidence a look at a chain reads no file of another, or fails") {
  if (!is_root())
    return;
  for (std::size_t i = 0; i < looks_at("").size(); ++i) {
    const Images images;
    const Words words = with_evidence(looks_at(images.top())[i]);
    CAPTURE(words[0] + " " + words[1]);
    const Ran ran = run_as_other(words);
    CHECK(ran.status == 1);
    CHECK(ran.err.find(refusal_of(images.base()).substr(11)) != std::string::npos);
    CHECK(images.are_unread());
    if (words[0] != "check")
      CHECK(ran.out.empty());
    const Ran as_root = run_coldchain(words);
    CHECK(as_root.err.find("--evidence") == std::string::npos);
    CHECK(images.are_unread());
  }
}

TEST_CASE("access times: with --evidence a refused image or folder is the only message") {
  if (!is_root())
    return;
  const Images images;
  for (const Words& words : {Words{"info", "--evidence", images.base()},
                             {"info", "--header", "--evidence", images.base()},
                             {"map", "--evidence", images.base()},
                             {"layout", "--evidence", images.base()},
                             {"check", "--evidence", images.base()},
                             {"tree", "--evidence", "--output=json", images.base(), images.top()},
                             {"measure", "--evidence", images.base()}}) {
    CAPTURE(words[0]);
    const Ran ran = run_as_other(words);
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    CHECK(ran.err == refusal_of(images.base()));
  }
  for (const Words& words :
       {Words{"tree", "--evidence", images.folder()}, {"check", "--evidence", images.folder()}}) {
    const Ran ran = run_as_other(words);
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    CHECK(ran.err == refusal_of(images.folder()));
  }
  CHECK(images.are_unread());
}

TEST_CASE("access times: verbs that change an image have no --evidence") {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  for (const char* verb : {"allocate", "commit", "pull", "rebase", "repair", "resume", "undo"})
    CHECK(run_coldchain({verb, "--evidence", folder / "a"})
              .err.starts_with("coldchain: there is no option '--evidence'."));
  const Ran repair = run_coldchain({"check", "-r", "all", "--evidence", folder / "a"});
  CHECK(repair.status == 1);
  CHECK(repair.err.starts_with("coldchain: -r changes the image, and --evidence forbids that"));
}

TEST_CASE("access times: a plan that was made with --evidence can be applied") {
  const TempFolder folder;
  ImageOptions options;
  ImageBuilder(options).data(0, 1).build().write_to(folder / "base");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).data(1, 1).build().write_to(folder / "top");
  const Ran plan = run_coldchain({"plan", "pull", "--evidence", "--output=json", folder / "top"});
  REQUIRE(plan.status == 0);
  testing::write_file(folder / "plan", plan.out);
  const Ran applied = run_coldchain({"apply", folder / "plan"});
  CHECK_MESSAGE(applied.status == 0, applied.err);
}
