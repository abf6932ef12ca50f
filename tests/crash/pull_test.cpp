// SPDX-License-Identifier: MIT
// A pull, rebase or allocation that is killed at each call that changes a file, or where that
// fails: QEMU reads the same through the image at every moment, and the same command, or resume,
// ends as if nothing had been.
#include "dirty_ranges.hpp"
#include "draw.hpp"
#include "oracle.hpp"
#include "power_loss.hpp"
#include "seeds.hpp"
#include "strace.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <filesystem>
#include <functional>

#include <fmt/format.h>

using namespace coldchain;
using testing::badness;
using testing::content;
using testing::have_strace;
using testing::Process;
using testing::read_file;
using testing::run_in;
using testing::run_program;
using testing::run_until;
using testing::sh;
using testing::TempFolder;

namespace {

const std::vector<std::string> calls = {"pwrite64", "fsync", "ftruncate", "unlinkat", "fallocate"};

// What is done to the top, and what resumes it.
struct Operation {
  std::string command;
  std::string resume = "resume top";
};
const std::vector<Operation> operations = {
    {"pull -q top"},
    {"pull -q --recompress top"},
    {"pull -q -b base top"},
    {"allocate -q top"},
    {"allocate -q --zero-fill --range 512k:2M top"},
    {"rebase -b other -F qcow2 top", "resume -b other -F qcow2 top"}};

// A base, a layer that hides a part of it by zeros, and a top over both; and another base, which
// has some of it.
void make_chain(const TempFolder& folder, const std::string& options = "") {
  sh(folder,
     "qemu-img create -q -f qcow2 base 32M && qemu-io -c 'write -P 1 0 2M' "
     "-c 'write -c -P 8 4M 64k' -c 'write -c -P 9 4160k 64k' base");
  sh(folder, "cp base other && qemu-io -c 'write -P 2 1M 100k' -c 'write -P 7 25M 64k' other");
  sh(folder, "qemu-img create -q -f qcow2 -o cluster_size=4k -b base -F qcow2 mid");
  sh(folder,
     "qemu-io -c 'write -P 2 1M 300k' -c 'write -z 0 4k' -c 'write -z 256k 128k' -c 'write -P 3 "
     "20M 64k' -c 'write -c -P 6 21M 128k' mid");
  sh(folder,
     "qemu-img create -q -f qcow2 " + options +
         " -b mid -F qcow2 top && qemu-io -c 'write -P 4 1200k 8k' -c 'write -P 5 30M 2k' top");
}

void look(const TempFolder& folder, const std::string& expected, const std::string& pulled) {
  CHECK((content(folder, "top") == expected));
  CHECK(badness(folder, "top") == 0);
  CHECK((read_file(folder / "top") == pulled));
  CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
}

// Stops a command at every 24th call, beginning with another one for each call and way to stop; or
// at each. An image with free clusters, which `looks` says, has other bytes there when it is rolled
// back.
class Stops {
 public:
  Stops(const TempFolder& folder, const Operation& operation, int& turn,
        std::function<void()> looks = nullptr)
      : folder_(folder),
        operation_(operation),
        turn_(turn),
        looks_(std::move(looks)),
        before_(read_file(folder / "top")),
        expected_(content(folder, "top")) {
    REQUIRE(run_program(folder, operation.command).status == 0);
    pulled_ = read_file(folder / "top");
    if (looks_)
      looks_();
  }

  void run() {
    const bool does_all = std::getenv("COLDCHAIN_CRASH_ALL") != nullptr;
    for (const std::string& call : calls) {
      for (const std::string what : {"signal=KILL", "error=ENOSPC"}) {
        ++turn_;
        for (int when = 1; when < 100; ++when) {
          CAPTURE(operation_.command);
          CAPTURE(call);
          CAPTURE(what);
          CAPTURE(when);
          if ((does_all || (when + turn_) % 24 == 0) && !stop(call, what, when))
            break;  // there is no such call any more
        }
      }
    }
    testing::write_file(folder_ / "top", before_);
  }

 private:
  bool stop(const std::string& call, const std::string& what, int when) {
    testing::write_file(folder_ / "top", before_);
    const testing::Stopped stopped = run_until(folder_, call, what, when, operation_.command);
    if (stopped.status == 0) {
      look(folder_, expected_, pulled_);
      return stopped.has_met;
    }
    CHECK((content(folder_, "top") == expected_));
    CHECK(badness(folder_, "top") <= 1);
    if (looks_)
      looks_();
    if (when % 3 == 0)
      abandon();
    const bool resumes = when % 3 == 1;
    const Process again = run_program(folder_, resumes ? operation_.resume : operation_.command);
    CHECK_MESSAGE(again.status == 0, again.err);
    if (resumes)
      CHECK(run_program(folder_, operation_.command).status == 0);  // where nothing had begun
    look(folder_, expected_, pulled_);
    return true;
  }

  void abandon() {
    const Process abandoned = run_program(folder_, operation_.resume + " --abandon");
    CHECK_MESSAGE(abandoned.status == 0, abandoned.err);
    CHECK((content(folder_, "top") == expected_));
    CHECK(badness(folder_, "top") == 0);
    const std::string now = read_file(folder_ / "top");
    CHECK((looks_ || now == before_ || now == pulled_));
    CHECK_FALSE(std::filesystem::exists(folder_ / "top.coldchain-pending"));
    if (looks_)
      looks_();
  }

  const TempFolder& folder_;
  const Operation& operation_;
  int& turn_;
  std::function<void()> looks_;
  std::string before_;
  std::string expected_;
  std::string pulled_;
};

// In mid, B and C record a write, and top has a cluster of bits for B alone; D is in top alone.
void add_bitmaps(const TempFolder& folder) {
  for (const std::string image : {"base", "other", "mid"})
    sh(folder, "qemu-img bitmap --add " + image + " B && qemu-img bitmap --add " + image + " C");
  sh(folder,
     "qemu-img bitmap --add -g 4k top B && qemu-io -c 'write -P 12 9M 64k' top && "
     "qemu-img bitmap --add -g 512 top C && qemu-img bitmap --add -g 512 top D && "
     "qemu-io -c 'write -P 11 8M 64k' mid");
}

// Once mid is no longer below it, the top itself says what changed there.
void look_at_bitmaps(const TempFolder& folder) {
  if (run_in(folder.path(), "qemu-img info top | grep -q 'backing file: mid'").status == 0)
    return;
  const GuestRange changed{{8 << 20}, {(8 << 20) + (64 << 10)}};
  for (const std::string bitmap : {"B", "C"})
    CHECK(testing::covers(testing::dirty_ranges(folder.path(), "top", bitmap), changed));
  CHECK(testing::covers(testing::dirty_ranges(folder.path(), "top", "D"),
                        GuestRange{{0}, {32 << 20}}));
}

}  // namespace

TEST_CASE("crash: a pull that is killed or fails anywhere changes nothing that the guest reads") {
  if (!testing::have_oracles() || !have_strace()) {
    MESSAGE("skipped: strace or QEMU's tools cannot be used");
    return;
  }
  int turn = 0;
  const TempFolder made;
  make_chain(made);
  for (const Operation& operation : operations)
    Stops(made, operation, turn).run();
}

TEST_CASE("crash: the bits of a layer are gained before it leaves, wherever a pull is stopped") {
  if (!testing::have_oracles() || !have_strace())
    return;
  int turn = 0;
  for (const std::string options : {"", "-o cluster_size=512"}) {
    const TempFolder made;
    make_chain(made, options);
    add_bitmaps(made);
    for (const Operation& operation : operations) {
      const bool is_tried = options.empty() ? operation.command.find("--range") == std::string::npos
                                            : operation.command == "pull -q -b base top";
      if (is_tried)
        Stops(made, operation, turn, [&] { look_at_bitmaps(made); }).run();
    }
  }
}

namespace {

// What QEMU reads of the top, and of its internal snapshot, if it has one.
std::string all_content(const TempFolder& folder) {
  const Process snapshot = run_in(
      folder.path(), "qemu-img convert -q -l s -f qcow2 -O raw top snapshot && cat snapshot");
  return content(folder, "top") + snapshot.out;
}

void lose_power(const TempFolder& made, const Operation& operation, std::uint64_t first_seed) {
  const std::uint64_t samples = testing::number_in("COLDCHAIN_CRASH_SEEDS", 3);
  const std::string before = read_file(made / "top");
  const std::string expected = all_content(made);
  const testing::PowerLoss lost(made, operation.command);
  const std::string pulled = read_file(made / "top");
  for (std::uint64_t seed = first_seed; seed < first_seed + samples; ++seed) {
    testing::Draw draw(seed);
    const std::size_t steps = draw.below(lost.steps() + 1);
    CAPTURE(operation.command);
    CAPTURE(seed);
    CAPTURE(steps);
    lost.leave(steps, draw);
    CHECK((all_content(made) == expected));
    CHECK(badness(made, "top") <= 1);
    const bool abandons = draw.chance(30);
    const Process ended = run_program(made, abandons          ? operation.resume + " --abandon"
                                            : draw.chance(50) ? operation.resume
                                                              : operation.command);
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK((all_content(made) == expected));
    CHECK(badness(made, "top") <= (abandons ? 1 : 0));
    CHECK(run_program(made, operation.command).status == 0);
    CHECK((all_content(made) == expected));
    if (!abandons)
      CHECK((read_file(made / "top") == pulled));
  }
  testing::write_file(made / "top", before);
}

}  // namespace

TEST_CASE("crash: what a machine without power leaves of a pull reads the same, and goes on") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder made;
  make_chain(made);
  for (std::size_t i = 0; i < operations.size(); ++i)
    lose_power(made, operations[i], i * 1000);
  for (const std::string options : {"", "-o extended_l2=on"}) {
    const TempFolder snapped;
    make_chain(snapped, options);
    sh(snapped, "qemu-img snapshot -c s top && qemu-io -c 'write -P 6 1M 64k' top");
    lose_power(snapped, {"pull -q --snapshots top"}, 9000);
    lose_power(snapped, {"pull -q --snapshots -b base top"}, 10'000);
  }
}

TEST_CASE("crash: a pull that is killed at any moment, and again on its way, ends all the same") {
  if (!testing::have_oracles())
    return;
  const std::uint64_t seeds = testing::number_in("COLDCHAIN_CRASH_SEEDS", 12);
  const TempFolder made;
  make_chain(made);
  const std::string before = read_file(made / "top");
  const std::string expected = content(made, "top");
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    CAPTURE(seed);
    testing::Draw draw(seed);
    const Operation& operation = operations[draw.below(operations.size())];
    CAPTURE(operation.command);
    testing::write_file(made / "top", before);
    (void)testing::run_for(made, 1 + draw.below(250), operation.command);
    CHECK((content(made, "top") == expected));
    CHECK(badness(made, "top") <= 1);
    for (int again = 0; again < 2; ++again) {
      const bool abandons = draw.chance(20);
      (void)testing::run_for(made, 1 + draw.below(150),
                             operation.resume + (abandons ? " --abandon" : ""));
      CHECK((content(made, "top") == expected));
      CHECK(badness(made, "top") <= 1);
    }
    const Process ended = run_program(made, operation.command);
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK((content(made, "top") == expected));
    CHECK(badness(made, "top") == 0);
    CHECK_FALSE(std::filesystem::exists(made / "top.coldchain-pending"));
  }
}

TEST_CASE("crash: a pull that goes on copies no more than what was missing, and one batch") {
  if (!testing::have_oracles() || !have_strace())
    return;
  constexpr std::uint64_t batch = 256 << 20;
  const TempFolder folder;
  sh(folder,
     "qemu-img create -q -f qcow2 base 800M && qemu-io -c 'write -q -P 1 0 800M' base && "
     "qemu-img create -q -f qcow2 -b base -F qcow2 top");
  const std::uint64_t whole = 800 << 20;
  const std::uint64_t first =
      testing::written_bytes(folder, "-e inject=pwrite64:signal=KILL:when=180", "pull -q top");
  CHECK(first > 2 * batch);
  CHECK(first < whole);
  const std::uint64_t second = testing::written_bytes(folder, "", "pull -q top");
  constexpr std::uint64_t metadata = 1 << 20;
  CHECK(second >= whole - first);
  CHECK(second <= whole - first + batch + metadata);
  CHECK(run_in(folder.path(), "qemu-img compare -q base top && qemu-img check -q top").status == 0);
}

namespace {

// What somebody may do to an image while its pull is interrupted. Whether the tool succeeds is its
// own affair.
std::string draw_action(testing::Draw& draw) {
  const std::string image =
      " --image-opts driver=qcow2,pass-discard-snapshot=off,file.filename=top";
  const std::uint64_t at = draw.below(512) * 65536;
  switch (draw.below(10)) {
    case 0:
    case 1:
      return "qemu-img check -q -r leaks top";
    case 2:
      // What is free again keeps its bytes.
      return "qemu-img snapshot -c s" + image + " && qemu-img snapshot -d s" + image;
    case 3:
      return fmt::format("qemu-io -c 'write -P 170 {} {}k' top", at, 4 + draw.below(300));
    case 4:
      return fmt::format("qemu-io -c 'discard {} {}k' top", at, 64 + draw.below(1000));
    case 5:
      return fmt::format("qemu-io -c 'write -P 187 1100k {}k' top", 4 + draw.below(300));
    case 6:
      // Just what is pulled: the same clusters are free for it.
      return "qemu-io -c 'write -P 238 0 256k' -c 'write -P 238 1M 300k' -c 'write -P 238 20M 64k' "
             "top";
    case 7:
      return "qemu-io -c 'write -P 221 1M 64k' top";
    case 8:
      return "qemu-io -c 'write -P 222 31459328 16k' top";  // where the file may end
    default:
      // One that dies leaves clusters that count and hold something.
      return fmt::format(
          "strace -f -o /dev/null -e trace=pwrite64,pwritev,fdatasync "
          "-e inject=pwrite64,pwritev,fdatasync:signal=KILL:when={} "
          "qemu-io -c 'write -P 204 {} {}k' top",
          1 + draw.below(8), at, 64 + draw.below(2000));
  }
}

// Resumes, or gives up, after others have written. Nobody's data is lost, and a pull can be done.
void end_after_others(const TempFolder& folder, const Operation& operation,
                      const std::string& actions, bool gives_up) {
  const std::string expected = content(folder, "top");
  const int worst = badness(folder, "top");
  CAPTURE(actions);
  REQUIRE(worst <= 1);
  const std::string abandon = operation.resume + " --abandon";
  const Process resumed = run_program(folder, gives_up ? abandon : operation.resume);
  CHECK((content(folder, "top") == expected));
  CHECK(badness(folder, "top") <= 1);
  if (resumed.status != 0) {
    CAPTURE(resumed.err);
    const Process abandoned = run_program(folder, abandon);
    CHECK_MESSAGE(abandoned.status == 0, abandoned.err);
    CHECK((content(folder, "top") == expected));
    CHECK(badness(folder, "top") <= 1);
  }
  CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
  const Process again = run_program(folder, operation.command);
  CHECK_MESSAGE(again.status == 0, again.err);
  CHECK((content(folder, "top") == expected));
  CHECK(badness(folder, "top") <= 1);
}

}  // namespace

TEST_CASE("crash: whatever others did while a pull was interrupted, they and it lose nothing") {
  if (!testing::have_oracles() || !have_strace()) {
    MESSAGE("skipped: strace or QEMU's tools cannot be used");
    return;
  }
  const char* chosen = std::getenv("COLDCHAIN_CRASH_SEEDS");
  const std::uint64_t seeds = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 12;
  // Small clusters with wide counts need refcount blocks, and a larger table, of their own.
  const TempFolder folders[4];
  make_chain(folders[0]);
  make_chain(folders[1], "-o cluster_size=512,refcount_bits=64");
  make_chain(folders[2], "-o extended_l2=on");
  make_chain(folders[3], "-o compat=0.10");
  REQUIRE(run_in(folders[3].path(), "qemu-io -c 'write -c -P 6 29M 64k' top").status == 0);
  const std::string before[] = {read_file(folders[0] / "top"), read_file(folders[1] / "top"),
                                read_file(folders[2] / "top"), read_file(folders[3] / "top")};
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    CAPTURE(seed);
    testing::Draw draw(seed);
    const std::size_t kind = draw.below(4);
    const TempFolder& folder = folders[kind];
    const Operation& operation = operations[draw.below(operations.size())];
    testing::write_file(folder / "top", before[kind]);
    std::filesystem::remove(folder / "top.coldchain-pending");
    const int when = 1 + static_cast<int>(draw.below(draw.chance(50) ? 20 : 120));
    if (run_until(folder, draw.chance(50) ? "pwrite64" : "fsync", "signal=KILL", when,
                  operation.command)
            .status == 0)
      continue;
    std::string actions;
    if (draw.chance(40)) {
      const char* const others[] = {"pwrite64", "fsync", "ftruncate", "unlinkat"};
      const std::string call = others[draw.below(4)];
      const int at = 1 + static_cast<int>(draw.below(12));
      const std::string again = operation.resume + (draw.chance(60) ? " --abandon" : "");
      (void)run_until(folder, call, "signal=KILL", at, again);
      actions = fmt::format("{} killed at {} {}\n", again, call, at);
    }
    for (std::uint64_t i = 0; i < 1 + draw.below(3); ++i) {
      const std::string action = draw_action(draw);
      actions += action + "\n";
      (void)run_in(folder.path(), action);
    }
    end_after_others(folder, operation, actions, draw.chance(50));
  }
}
