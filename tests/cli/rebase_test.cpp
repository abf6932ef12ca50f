// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <filesystem>

#include <coldchain/io/lock.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

ImageOptions over(const std::string& backing) {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 1 << 20;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : "qcow2";
  return options;
}

// base <- mid <- top, and a base that is another.
class Scene {
 public:
  Scene() {
    ImageBuilder(over("")).data(1, 'b').data(5, 'b').build().write_to(folder_ / "base");
    ImageBuilder(over("base")).data(2, 'm').data(6, 'm').build().write_to(folder_ / "mid");
    ImageBuilder(over("mid")).data(3, 't').build().write_to(folder_ / "top");
    ImageBuilder(over("")).data(1, 'b').data(2, 'o').data(7, 'o').build().write_to(folder_ /
                                                                                   "other");
    before_ = read_file(folder_ / "top");
  }
  Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder_.path(), arguments);
  }
  // Of a rebase: what it did, as JSON.
  nlohmann::json rebase(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"rebase", "--output=json"});
    const Ran ran = run(arguments);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
    return nlohmann::json::parse(ran.out);
  }
  [[nodiscard]] nlohmann::json info() const {
    return nlohmann::json::parse(run({"info", "--output=json", "top"}).out);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] bool is_as_before() const { return read_file(folder_ / "top") == before_; }
  [[nodiscard]] bool is_pending() const {
    return std::filesystem::exists(folder_ / "top.coldchain-pending");
  }
  Ran interrupt(const std::vector<std::string>& arguments) const {
    return testing::interrupt_coldchain_in(folder_.path(), arguments);
  }

 private:
  TempFolder folder_;
  std::string before_;
};

}  // namespace

TEST_CASE("rebase: what another base does not have just so is copied, and nothing else") {
  const Scene scene;
  // 1 is the same in both, 2 and 5 and 6 are not, 7 is nothing here.
  const nlohmann::json done = scene.rebase({"-b", "other", "-F", "qcow2", "top"});
  CHECK(done["written-bytes"] == 3 * 4096);
  CHECK(done["zeroed-bytes"] == 4096);
  CHECK(scene.info()["backing-filename"] == "other");
  CHECK(scene.info()["backing-filename-format"] == "qcow2");
  CHECK(scene.run({"check", "top"}).status == 0);
}

TEST_CASE("rebase: onto a layer below it is a pull, and to none, too") {
  const Scene scene;
  CHECK(scene.rebase({"-b", "base", "-F", "qcow2", "top"})["written-bytes"] == 2 * 4096);
  CHECK(scene.info()["backing-filename"] == "base");
  CHECK(scene.rebase({"-b", "", "top"})["written-bytes"] == 2 * 4096);
  CHECK_FALSE(scene.info().contains("backing-filename"));
  CHECK(scene.run({"check", "top"}).status == 0);
}

TEST_CASE("rebase: onto the same base by another name changes the name") {
  const Scene scene;
  REQUIRE(scene.run({"rebase", "-b", "./mid", "-F", "qcow2", "top"}).status == 0);
  CHECK(scene.info()["backing-filename"] == "./mid");
  const std::string bytes = read_file(scene.path("top"));
  CHECK(scene.run({"pull", "-b", "mid", "top"}).out.find("Nothing had to be done") !=
        std::string::npos);
  CHECK((read_file(scene.path("top")) == bytes));
  CHECK(scene.run({"check", "top"}).status == 0);
}

TEST_CASE("rebase: an image or base that another process writes to ends with qemu-img's status 1") {
  const Scene scene;
  for (const std::string name : {"other", "top"}) {
    const auto files = io::system_files({}).value();
    const auto held = testing::open_for_writing(scene.path(name));
    REQUIRE(io::hold_write_locks(*held).has_value());
    CHECK(scene.run({"rebase", "-b", "other", "-F", "qcow2", "top"}).status == 1);
    CHECK(scene.run({"plan", "rebase", "-b", "other", "-F", "qcow2", "top"}).status == 1);
    CHECK(scene.is_as_before());
  }
  const auto files = io::system_files({}).value();
  const auto held = testing::open_for_writing(scene.path("top"));
  REQUIRE(io::hold_write_locks(*held).has_value());
  CHECK(scene.run({"rebase", "-u", "-b", "other", "-F", "qcow2", "top"}).status == 1);
}

TEST_CASE("rebase: a snapshot of an image without a backing file would read the new one") {
  const Scene scene;
  ImageBuilder(over("")).data(3, 't').snapshot("1", "s").data(4, 'n').build().write_to(
      scene.path("alone"));
  const Ran refused = scene.run({"rebase", "-b", "other", "-F", "qcow2", "alone"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("1 (s)") != std::string::npos);
}

TEST_CASE("rebase: an image without a backing file gets one, also with the bitmaps it has") {
  if (!testing::have_oracles())
    return;
  for (const std::string unsafe : {"", "-u"}) {
    CAPTURE(unsafe);
    const TempFolder folder;
    REQUIRE(
        testing::run_in(folder.path(),
                        "qemu-img create -q -f qcow2 base 4M && qemu-io -c 'write -q 0 2M' base "
                        "&& qemu-img create -q -f qcow2 top 4M && "
                        "qemu-io -c 'write -q -P 7 1M 64k' top && "
                        "qemu-img bitmap --add top first && qemu-img bitmap --add top second")
            .status == 0);
    std::vector<std::string> command{"rebase", "-b", "base", "-F", "qcow2", "top"};
    if (!unsafe.empty())
      command.insert(command.begin() + 1, unsafe);
    const Ran ran = run_coldchain_in(folder.path(), command);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
    const auto info = nlohmann::json::parse(
        testing::run_in(folder.path(), "qemu-img info --output=json top").out);
    CHECK(info["backing-filename"] == "base");
    CHECK(info["backing-filename-format"] == "qcow2");
    CHECK(info["format-specific"]["data"]["bitmaps"].size() == 2);
    CHECK(testing::run_in(folder.path(), "qemu-img check -q top").status == 0);
    const std::string behind = unsafe.empty() ? "-P 0" : "-P 205";
    CHECK(testing::run_in(folder.path(), "qemu-io -c 'read -P 7 1M 64k' -c 'read " + behind +
                                             " 0 1M' top | grep -c failed")
              .out == "0\n");
    // The format stays when the link goes, and becomes another one when one comes.
    CHECK(run_coldchain_in(folder.path(), {"rebase", "-u", "-b", "", "top"}).status == 0);
    const Ran other =
        run_coldchain_in(folder.path(), {"rebase", "-u", "-b", "base", "-F", "raw", "top"});
    CHECK_MESSAGE(other.status == 0, other.err);
    CHECK(nlohmann::json::parse(testing::run_in(folder.path(), "qemu-img info --output=json top")
                                    .out)["backing-filename-format"] == "raw");
  }
}

TEST_CASE("rebase: -u records every format that QEMU has a driver for, and a safe one reads two") {
  const Scene scene;
  for (const std::string format : {"host_device", "file", "vmdk", "nbd", "throttle", "null-co"}) {
    CAPTURE(format);
    const Ran done = scene.run({"rebase", "-u", "-b", "base", "-F", format, "top"});
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK(scene.run({"info", "top"}).out.find("backing file format: " + format + "\n") !=
          std::string::npos);
    CHECK(scene.run({"tree", "top"}).out.find("top") != std::string::npos);
    CHECK(scene.run({"rebase", "-b", "base", "-F", format, "top"}).status == 1);
  }
  CHECK(scene.run({"rebase", "-u", "-b", "base", "-F", "copy-before-write", "top"}).status == 0);
  CHECK(scene.run({"info", "top"}).out.find("backing file format: copy-before-wri\n") !=
        std::string::npos);
  for (const std::string format : {"", "RAW", "qcow3", "qcow2x", "nonsense"}) {
    CAPTURE(format);
    const Ran refused = scene.run({"rebase", "-u", "-b", "base", "-F", format, "top"});
    CHECK(refused.status == 1);
    CHECK(refused.err == "coldchain: Invalid format name: '" + format + "'\n");
  }
}

TEST_CASE("rebase: prints nothing, and what it would do is told by plan") {
  const Scene scene;
  const Ran plan = scene.run({"plan", "rebase", "-b", "other", "-F", "qcow2", "top"});
  CHECK(plan.out.find("12288 bytes of guest data") != std::string::npos);
  CHECK(scene.is_as_before());
  const Ran done = scene.run({"rebase", "-b", "other", "-F", "qcow2", "top"});
  CHECK(done.status == 0);
  CHECK(done.out.empty());
}

TEST_CASE("rebase: -u changes the link alone") {
  const Scene scene;
  REQUIRE(scene.run({"rebase", "-u", "-b", "nowhere", "-F", "raw", "top"}).status == 0);
  CHECK(scene.info()["backing-filename"] == "nowhere");
  CHECK(scene.info()["backing-filename-format"] == "raw");
  REQUIRE(scene.run({"rebase", "-u", "-b", "mid", "-F", "qcow2", "top"}).status == 0);
  CHECK(scene.info()["backing-filename"] == "mid");
  CHECK(scene.run({"check", "top"}).status == 0);
  REQUIRE(scene.run({"rebase", "-u", "top"}).status == 0);
  CHECK_FALSE(scene.info().contains("backing-filename"));
  CHECK_FALSE(scene.is_pending());
  CHECK_FALSE(std::filesystem::exists(scene.path("top.coldchain-undo")));
}

TEST_CASE("rebase: what makes no sense or is not safe is refused, and nothing is changed") {
  const Scene scene;
  const auto refused = [&](const std::vector<std::string>& more, const std::string& why) {
    std::vector<std::string> arguments = {"rebase"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ran ran = scene.run(arguments);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
    CHECK(scene.is_as_before());
    CHECK_FALSE(scene.is_pending());
  };
  refused({"top"}, "Must specify backing file (-b) or use unsafe mode (-u)");
  refused({"-b", "other", "top"}, "backing format must be specified");
  refused({"-u", "-b", "other", "top"}, "backing format must be specified");
  refused({"-b", "other", "-F", "foo", "top"}, "Invalid format name: 'foo'");
  refused({"-b", "other", "-F", "qcow2", "-t", "foo", "top"}, "Invalid cache option: foo");
  refused({"-b", "none", "-F", "qcow2", "top"}, "Could not open new backing file 'none'");
  refused({"-b", "top", "-F", "qcow2", "top"}, "Could not open new backing file 'top'");
  refused({"-f", "raw", "-b", "other", "-F", "qcow2", "top"}, "only a qcow2 image");
}

TEST_CASE("rebase: an internal snapshot that reads through what would go is in the way") {
  const Scene scene;
  ImageBuilder(over("mid"))
      .data(3, 't')
      .snapshot("1", "before")
      .data(4, 'n')
      .build()
      .write_to(scene.path("snapped"));
  const Ran refused = scene.run({"rebase", "-b", "other", "-F", "qcow2", "snapped"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("1 (before)") != std::string::npos);
  CHECK(scene.run({"rebase", "--force", "-b", "other", "-F", "qcow2", "snapped"}).status == 0);
}

TEST_CASE("rebase: one that was stopped goes on with the same command or resume, or is given up") {
  const std::vector<std::string> same = {"rebase", "-b", "other", "-F", "qcow2", "top"};
  const Scene whole;
  REQUIRE(whole.run(same).status == 0);
  for (const std::vector<std::string>& next : std::vector<std::vector<std::string>>{
           same, {"resume", "-b", "other", "-F", "qcow2", "top"}}) {
    const Scene scene;
    REQUIRE(scene.interrupt(same).status == testing::status_of_interrupted);
    REQUIRE(scene.is_pending());
    const Ran alone = scene.run({"resume", "top"});
    CHECK(alone.status == 1);
    CHECK_MESSAGE(alone.err.find("-b other -F qcow2") != std::string::npos, alone.err);
    CHECK(scene.run({"rebase", "-b", "base", "-F", "qcow2", "top"}).status == 1);
    CHECK(scene.run({"pull", "top"}).status == 1);
    CHECK(scene.run(next).status == 0);
    CHECK((read_file(scene.path("top")) == read_file(whole.path("top"))));
    CHECK_FALSE(scene.is_pending());
  }
  const Scene scene;
  REQUIRE(scene.interrupt(same).status == testing::status_of_interrupted);
  CHECK(scene.run({"resume", "--abandon", "top"}).status == 0);
  CHECK(scene.is_as_before());
}

TEST_CASE("rebase -u: of an image that QEMU refuses for its bitmaps changes nothing") {
  const TempFolder folder;
  for (const char* name : {"bitmap-extra-data", "second-bitmap-table-of-another-size"}) {
    const Bytes image = testing::damage(name).image();
    testing::write_file(folder / "x", image);
    const Ran ran = run_coldchain_in(folder.path(), {"rebase", "-u", "-b", "", "x"});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find("QEMU refuses the image") != std::string::npos, ran.err);
    CHECK((read_file(folder / "x") == to_string(image)));
  }
}
