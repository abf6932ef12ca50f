// SPDX-License-Identifier: MIT
// The program itself, killed at each call that changes a file: by strace, which stops it there.
#include "damage.hpp"
#include "oracle.hpp"
#include "strace.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

using namespace coldchain;
using testing::badness;
using testing::have_strace;
using testing::Process;
using testing::read_file;
using testing::run_until;
using testing::TempFolder;

namespace {

const std::vector<std::string> calls = {"pwrite64", "fsync", "ftruncate", "renameat2", "unlinkat"};

}  // namespace

TEST_CASE("crash: killed at any call, a repair leaves no worse image, and the same command ends") {
  if (!testing::have_oracles() || !have_strace()) {
    MESSAGE("skipped: strace or QEMU's tools cannot be used");
    return;
  }
  for (const std::string name : {"refcount-block-missing", "l2-entry-twice"}) {
    CAPTURE(name);
    const Bytes image = testing::damage(name).image();
    const std::string command = "check -q -r all --free-orphans a";
    const TempFolder clean;
    testing::write_file(clean / "a", image);
    const int before = badness(clean, "a");
    const int expected = testing::run_program(clean, command).status;
    const std::string repaired = read_file(clean / "a");
    // After the change is finished, by the killed run or first of all by the next, there is less to
    // be found.
    const int repeated = testing::run_program(clean, command).status;
    REQUIRE(read_file(clean / "a") == repaired);
    for (const std::string& call : calls) {
      for (int when = 1; when < 100; ++when) {
        CAPTURE(call);
        CAPTURE(when);
        const TempFolder folder;
        testing::write_file(folder / "a", image);
        const Process killed = run_until(folder, call, "signal=KILL", when, command);
        if (killed.status == expected)
          break;  // there is no such call any more
        CHECK(badness(folder, "a") <= before);
        const bool goes_back = when % 2 == 0;
        if (goes_back) {
          const Process abandoned = testing::run_program(folder, "resume --abandon a");
          CHECK_MESSAGE(abandoned.status == 0, abandoned.err);
        }
        const bool may_be_finished = !goes_back || read_file(folder / "a") == repaired;
        const Process again = testing::run_program(folder, command);
        CHECK_MESSAGE((again.status == expected || (may_be_finished && again.status == repeated)),
                      again.err);
        CHECK((read_file(folder / "a") == repaired));
        CHECK_FALSE(std::filesystem::exists(folder / "a.coldchain-pending"));
      }
    }
  }
}

TEST_CASE("crash: an undo that is killed at any call ends with the same command") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const Bytes image = testing::damage("refcount-block-missing").image();
  const std::string command = "undo a.coldchain-undo a";
  for (const std::string& call : calls) {
    for (int when = 1; when < 100; ++when) {
      CAPTURE(call);
      CAPTURE(when);
      const TempFolder folder;
      testing::write_file(folder / "a", image);
      REQUIRE(testing::run_program(folder, "check -q -r all --free-orphans a").status == 0);
      const Process killed = run_until(folder, call, "signal=KILL", when, command);
      if (killed.status == 0)
        break;
      // Other changes are refused until the undo is finished.
      const Process again = testing::run_program(folder, command);
      const bool was_done = again.err.find("undone already") != std::string::npos;
      CHECK_MESSAGE((again.status == 0 || was_done), again.err);
      CHECK((read_file(folder / "a") == to_string(image)));
      CHECK_FALSE(std::filesystem::exists(folder / "a.coldchain-pending"));
    }
  }
}

TEST_CASE("crash: a full or broken disk leaves the image as it was, or repaired") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const Bytes image = testing::damage("refcount-block-missing").image();
  const std::string command = "check -q -r all --free-orphans a";
  const TempFolder clean;
  testing::write_file(clean / "a", image);
  REQUIRE(testing::run_program(clean, command).status == 0);
  const std::string repaired = read_file(clean / "a");
  for (const std::string& call : calls) {
    const std::string error = call == "fsync" ? "error=EIO" : "error=ENOSPC";
    for (int when = 1; when < 100; ++when) {
      CAPTURE(call);
      CAPTURE(when);
      const TempFolder folder;
      testing::write_file(folder / "a", image);
      const testing::Stopped failed = run_until(folder, call, error, when, command);
      const std::string left = read_file(folder / "a");
      testing::forget_in_state_folder(folder / "a");
      if (failed.status == 0) {
        CHECK((left == repaired));
        if (!failed.has_met)
          break;
        continue;
      }
      CHECK(failed.status == 1);
      CHECK((left == to_string(image) || left == repaired));
      const Process again = testing::run_program(folder, command);
      CHECK_MESSAGE(again.status == 0, again.err);
      CHECK((read_file(folder / "a") == repaired));
      CHECK_FALSE(std::filesystem::exists(folder / "a.coldchain-pending"));
    }
  }
}

TEST_CASE("crash: what QEMU wrote between a crash and the resume is not damaged") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  const auto sh = [&](const std::string& command) {
    const Process ran = testing::run_in(folder.path(), command);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
  };
  sh("qemu-img create -q -f qcow2 a 64M");
  sh("qemu-io -c 'write -P 1 0 256k' a");
  // One leaked cluster at the end of the file, which QEMU takes as soon as it is free.
  std::string text = read_file(folder / "a");
  const ByteView view = text_bytes(text);
  testing::Patient patient(Bytes(view.begin(), view.end()));
  const std::uint64_t leaked = patient.bytes().size() / patient.cluster_size();
  patient.resize(patient.bytes().size() + patient.cluster_size());
  patient.set_refcount(leaked, 1);
  testing::write_file(folder / "a", patient.bytes());
  // Killed at each write: wherever the cluster is free by then, QEMU takes it.
  int refused = 0;
  for (int when = 1; when < 20; ++when) {
    CAPTURE(when);
    testing::write_file(folder / "a", patient.bytes());
    const Process killed =
        run_until(folder, "pwrite64", "signal=KILL", when, "check -q -r leaks --no-undo a");
    if (killed.status == 0)
      break;
    sh("qemu-io -c 'write -P 2 1M 64k' a");
    const int before = badness(folder, "a");
    const Process resumed = testing::run_program(folder, "resume a");
    CHECK(badness(folder, "a") <= before);
    sh("qemu-io -c 'read -P 2 1M 64k' -c 'read -P 1 0 256k' a");
    if (resumed.status != 0) {
      ++refused;
      CHECK(resumed.err.find("sound, 'mv ") != std::string::npos);
    }
    std::filesystem::remove(folder / "a.coldchain-pending");
    std::filesystem::remove(folder / "a.coldchain-undo");
  }
  CHECK(refused > 0);
}

TEST_CASE("crash: a dry run opens nothing for writing, so that it has nothing to lose") {
  if (!have_strace())
    return;
  const TempFolder folder;
  testing::write_file(folder / "a", testing::damage("l2-entry-past-end").image());
  REQUIRE(testing::run_program(folder, "repair -q a").status ==
          3);  // leaves an undo file, which is looked at
  const Process ran = testing::run_in(
      folder.path(),
      "ASAN_OPTIONS=detect_leaks=0 strace -f -o log -e trace=openat,open " COLDCHAIN_PROGRAM
      " repair -r leaks --dry-run a");
  CHECK(ran.status == 3);
  const std::string log = read_file(folder / "log");
  CHECK(log.find("a.coldchain-undo") != std::string::npos);
  for (const char* flag : {"O_RDWR", "O_WRONLY", "O_CREAT"})
    CHECK(log.find(flag) == std::string::npos);
}
