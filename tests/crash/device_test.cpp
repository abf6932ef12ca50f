// SPDX-License-Identifier: MIT
// A pull into, and a commit onto, a block device that is killed at a call, or where that fails.
#include "loop_device.hpp"
#include "oracle.hpp"
#include "strace.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <filesystem>

using namespace coldchain;
using testing::badness;
using testing::content;
using testing::LoopDevice;
using testing::Process;
using testing::read_file;
using testing::run_program;
using testing::sh;
using testing::TempFolder;

TEST_CASE("crash: what is killed while it writes to a block device goes on, and loses nothing") {
  if (!testing::have_oracles() || !testing::have_strace())
    return;
  const TempFolder folder;
  sh(folder, "mkdir state && truncate -s 16M device");
  const LoopDevice device(folder / "device");
  if (device.path().empty()) {
    MESSAGE("skipped: no loop device is to be had here");
    return;
  }
  const std::string& disk = device.path();
  sh(folder, "qemu-img create -q -f qcow2 base 32M && qemu-io -c 'write -P 1 0 2M' base");
  sh(folder, "qemu-img create -q -f qcow2 -b $PWD/base -F qcow2 " + disk +
                 " && qemu-io -f qcow2 -c 'write -P 2 1M 300k' " + disk);
  sh(folder, "qemu-img create -q -f qcow2 -b " + disk +
                 " -F qcow2 top && qemu-io -c 'write -P 3 1200k 1M' -c 'write -z 0 64k' top");
  const std::string device_before = read_file(disk);
  const std::string top_before = read_file(folder / "top");
  const bool does_all = std::getenv("COLDCHAIN_CRASH_ALL") != nullptr;
  int turn = 0;
  for (const std::string verb : {"pull", "commit"}) {
    const std::string image = verb == "pull" ? disk : "top";
    const std::string command = verb + " -q -f qcow2 --state-dir state " + image;
    const std::string expected = content(folder, image);
    for (const std::string call : {"pwrite64", "fsync", "unlinkat"}) {
      for (const std::string what : {"signal=KILL", "error=EIO"}) {
        ++turn;
        for (int when = 1; when < 100; ++when) {
          if (!does_all && (when + turn) % 12 != 0)
            continue;
          CAPTURE(command);
          CAPTURE(call);
          CAPTURE(what);
          CAPTURE(when);
          testing::write_file(disk, device_before);
          testing::write_file(folder / "top", top_before);
          const testing::Stopped stopped = testing::run_until(folder, call, what, when, command);
          if (!stopped.has_met)
            break;
          if (stopped.status == 0)
            continue;  // the call only helps
          CHECK((content(folder, image) == expected));
          CHECK(badness(folder, disk) <= 1);
          if (when % 2 == 0) {
            const Process resumed =
                run_program(folder, "resume -f qcow2 --state-dir state " + image);
            CHECK_MESSAGE(resumed.status == 0, resumed.err);
          }
          const Process again = run_program(folder, command);
          CHECK_MESSAGE(again.status == 0, again.err);
          CHECK((content(folder, image) == expected));
          CHECK((content(folder, disk) == expected));
          CHECK(badness(folder, disk) == 0);
          CHECK(std::filesystem::is_empty(folder / "state"));
        }
      }
    }
  }
}
