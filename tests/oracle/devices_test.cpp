// SPDX-License-Identifier: MIT
// Block devices and encrypted images, against qemu-img.
#include "damage.hpp"
#include "loop_device.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::check_like_qemu_img;
using testing::LoopDevice;
using testing::read_file;
using testing::run_coldchain;
using testing::run_in;
using testing::TempFolder;

namespace {

// Removes what a test adds to the folder where the undo files of devices lie.
class StateFolderKept {
 public:
  StateFolderKept() : before_(files()) {}
  StateFolderKept(const StateFolderKept&) = delete;
  StateFolderKept& operator=(const StateFolderKept&) = delete;
  ~StateFolderKept() {
    for (const std::filesystem::path& file : files()) {
      if (!before_.contains(file))
        std::filesystem::remove(file);
    }
  }

 private:
  static std::set<std::filesystem::path> files() {
    std::set<std::filesystem::path> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/var/lib/coldchain", error))
      found.insert(entry.path());
    return found;
  }

  std::set<std::filesystem::path> before_;
};

}  // namespace

TEST_CASE("oracle: a block device is read as qemu-img reads it, raw or qcow2") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 image.qcow2 64M && "
                 "qemu-io -f qcow2 -c 'write -P 5 1M 300k' -c 'write -z 3M 64k' image.qcow2 "
                 ">/dev/null && truncate -s 8M image.qcow2")
              .status == 0);
  const LoopDevice device(folder / "image.qcow2");
  if (device.path().empty()) {
    MESSAGE("skipped: no loop device is to be had here");
    return;
  }
  check_like_qemu_img(folder.path(), {"info", "-f", "qcow2", device.path()});
  check_like_qemu_img(folder.path(), {"map", "--output=json", "-f", "qcow2", device.path()});
  check_like_qemu_img(folder.path(), {"info", "-f", "raw", device.path()});
  check_like_qemu_img(folder.path(), {"map", "--output=json", "-f", "raw", device.path()});

  // libvirt's numbers: the device's end is the physical size, the image end what is in use of it.
  const auto tree = nlohmann::json::parse(
      run_coldchain({"tree", "--output=json", "-f", "qcow2", device.path()}).out);
  const auto& top = tree["trees"][0]["layers"][0];
  CHECK(top["capacity"] == 64 << 20);
  CHECK(top["physical"] == 8 << 20);
  CHECK(top["allocation"] == top["image-end"]);
  const auto check = nlohmann::json::parse(
      run_in("/", "qemu-img check --output=json -f qcow2 " + device.path()).out);
  CHECK(top["image-end"] == check["image-end-offset"]);
}

TEST_CASE("oracle: a damaged qcow2 on a block device is repaired in place, and an undo undoes it") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  // Its only refcount block is lost: a repair needs room for another, and finds it on the device.
  const std::string damaged = to_string(testing::damage("refcount-block-missing").image());
  testing::write_file(folder / "device", damaged + std::string((1 << 20) - damaged.size(), '\0'));
  std::filesystem::create_directory(folder / "state");
  const LoopDevice device(folder / "device");
  if (device.path().empty()) {
    MESSAGE("skipped: no loop device is to be had here");
    return;
  }
  const std::string before = read_file(device.path());
  const auto repair = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"repair", "-q", "--free-orphans", "--state-dir",
                                          folder / "state"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.push_back(device.path());
    return run_coldchain(arguments);
  };
  CHECK(repair({"--dry-run"}).status == 0);
  CHECK(read_file(device.path()) == before);
  const testing::Ran repaired = repair({});
  CHECK_MESSAGE(repaired.status == 0, repaired.err);
  CHECK(run_in("/", "qemu-img check -f qcow2 " + device.path()).status == 0);
  std::vector<std::string> kept;
  for (const auto& file : std::filesystem::directory_iterator(folder / "state"))
    kept.push_back(file.path());
  REQUIRE(kept.size() == 1);
  CHECK(run_coldchain({"undo", "--state-dir", folder / "state", kept[0], device.path()}).status ==
        0);
  CHECK(read_file(device.path()) == before);
}

TEST_CASE("oracle: the command that goes on with a change of a device says where its files lie") {
  const TempFolder folder;
  testing::write_file(folder / "device", testing::damage("refcount-zero").image());
  std::filesystem::create_directory(folder / "state");
  const LoopDevice device(folder / "device");
  if (device.path().empty()) {
    MESSAGE("skipped: no loop device is to be had here");
    return;
  }
  REQUIRE(run_coldchain({"repair", "-q", "--state-dir", folder / "state", device.path()}).status ==
          0);
  for (const auto& file : std::filesystem::directory_iterator(folder / "state")) {
    const std::string kept = file.path();
    std::filesystem::rename(kept, kept.substr(0, kept.find(".coldchain-")) + ".coldchain-pending");
  }
  const std::string expected =
      "coldchain resume --state-dir " + (folder / "state") + " " + device.path() + "'";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"check"}, std::vector<std::string>{"repair", "--dry-run"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--state-dir", folder / "state", device.path()});
    CHECK(run_coldchain(arguments).err.find(expected) != std::string::npos);
  }
}

TEST_CASE("oracle: what a repair of a device has kept is known under another number, too") {
  if (!testing::have_oracles())
    return;
  const StateFolderKept kept;
  const TempFolder folder;
  const std::string damaged = to_string(testing::damage("l2-entry-past-end").image());
  testing::write_file(folder / "device", damaged);
  testing::write_file(folder / "other", std::string(1 << 20, '\0'));
  std::filesystem::create_directory(folder / "state");
  std::string first;
  {
    const LoopDevice device(folder / "device");
    if (device.path().empty()) {
      MESSAGE("skipped: no loop device is to be had here");
      return;
    }
    first = device.path();
    CHECK(run_coldchain({"repair", "-q", "--state-dir", folder / "state", first}).status == 3);
  }
  const LoopDevice other(folder / "other");
  const LoopDevice again(folder / "device");
  if (again.path() == first)
    return;  // somebody else took a device meanwhile
  CHECK(
      run_coldchain({"repair", "-r", "leaks", "-q", "--state-dir", folder / "state", again.path()})
          .status == 3);
}

TEST_CASE(
    "oracle: a device too small for what a repair must add is refused, with the size needed") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  const std::string damaged = to_string(testing::damage("refcount-block-missing").image());
  testing::write_file(folder / "device", damaged);
  std::filesystem::create_directory(folder / "state");
  const LoopDevice device(folder / "device");
  if (device.path().empty())
    return;
  const std::string before = read_file(device.path());
  const testing::Ran ran =
      run_coldchain({"repair", "-q", "--state-dir", folder / "state", device.path()});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("make the device larger") != std::string::npos);
  CHECK(read_file(device.path()) == before);
  CHECK(std::filesystem::is_empty(folder / "state"));
}

TEST_CASE("oracle: a mounted device is refused as in use") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "state");
  std::filesystem::create_directory(folder / "mounted");
  testing::write_file(folder / "device", std::string(1 << 20, '\0'));
  const LoopDevice device(folder / "device");
  if (device.path().empty() || run_in(folder.path(), "mke2fs -q " + device.path() + " && mount " +
                                                         device.path() + " mounted")
                                       .status != 0) {
    MESSAGE("skipped: no loop device is to be had here, or none can be mounted");
    return;
  }
  const testing::Ran ran =
      run_coldchain({"resume", "--state-dir", folder / "state", device.path()});
  REQUIRE(run_in(folder.path(), "umount mounted").status == 0);
  CHECK(ran.status == 4);
  CHECK(ran.err.find("mounted") != std::string::npos);
}

TEST_CASE("oracle: an overlay on a block device has its map") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "disk", std::string(2 << 20, 'D'));
  const LoopDevice device(folder / "disk");
  if (device.path().empty()) {
    MESSAGE("skipped: no loop device is to be had here");
    return;
  }
  REQUIRE(run_in(folder.path(), "qemu-img create -q -f qcow2 -F raw -b " + device.path() + " top")
              .status == 0);
  check_like_qemu_img(folder.path(), {"map", "--output=json", folder / "top"});
  check_like_qemu_img(folder.path(), {"info", "--backing-chain", folder / "top"});
}

TEST_CASE("oracle: images on the volumes of a folder are found by the links to the devices") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "one", std::string(4 << 20, '\0'));
  testing::write_file(folder / "two", std::string(4 << 20, '\0'));
  const LoopDevice base(folder / "one");
  const LoopDevice overlay(folder / "two");
  if (base.path().empty() || overlay.path().empty())
    return;
  // As LVM has it: /dev/VG/LV is a link.
  std::filesystem::create_directories(folder / "vg");
  std::filesystem::create_symlink(base.path(), folder / "vg/base");
  std::filesystem::create_symlink(overlay.path(), folder / "vg/overlay");
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 vg/base 64M && "
                 "qemu-img create -q -f qcow2 -b base -F qcow2 vg/overlay")
              .status == 0);
  const auto deps = run_coldchain({"deps", "--scan", folder / "vg", folder / "vg/base"});
  CHECK(deps.status == 5);
  CHECK(deps.out.find((folder / "vg/overlay") + "  its backing file\n") != std::string::npos);
  const auto tree = run_coldchain({"tree", folder / "vg"});
  CHECK(tree.status == 0);
  CHECK(tree.out.find("images: 2, leaves: 1,") != std::string::npos);
  CHECK(run_coldchain({"tree", folder / "vg/overlay", folder / "vg"}).out == tree.out);
}

TEST_CASE("oracle: encrypted images are described as by qemu-img; their data is a clear error") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  const std::vector<std::string> names = {"luks", "aes", "luks-of-other-cipher"};
  REQUIRE(testing::create_encrypted(folder.path(), names[0], "luks"));
  REQUIRE(testing::create_encrypted(folder.path(), names[1], "aes"));
  REQUIRE(testing::create_encrypted(
      folder.path(), names[2], "luks",
      ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256"));
  for (const std::string& name : names) {
    CAPTURE(name);
    check_like_qemu_img(folder.path(), {"info", folder / name});
    const auto theirs = nlohmann::ordered_json::parse(
        run_in(folder.path(), "qemu-img info --output=json " + (folder / name)).out);
    auto mine =
        nlohmann::ordered_json::parse(run_coldchain({"info", "--output=json", folder / name}).out);
    mine.erase("coldchain");
    CHECK(mine.dump() == theirs.dump());
    CHECK(run_coldchain({"tree", folder / name}).status == 0);
    CHECK(run_coldchain({"map", "--output=json", folder / name}).status == 0);
  }
}
