// SPDX-License-Identifier: MIT
// A commit that is killed at each call that changes a file, or where that fails: QEMU reads the
// same through the top at every moment, and the same command, or resume, ends as if nothing had
// been.
#include "draw.hpp"
#include "oracle.hpp"
#include "power_loss.hpp"
#include "seeds.hpp"
#include "strace.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

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

// A kind of base, and what is committed into it.
struct Scene {
  std::string name;
  std::string make_base;
  std::string command;
  bool base_is_qcow2 = true;
};

const std::vector<Scene> scenes = {
    {"the base owns some of it", "qemu-img create -q -f qcow2 base 3M", "commit -q top"},
    {"a snapshot of the base shares it",
     "qemu-img create -q -f qcow2 base 3M && qemu-io -c 'write -P 9 0 2M' base && "
     "qemu-img snapshot -c s base && qemu-img bitmap --add base b",
     "commit -q top"},
    {"subclusters", "qemu-img create -q -f qcow2 -o extended_l2=on base 3M", "commit -q -d top"},
    {"version 2, below the next layer", "qemu-img create -q -f qcow2 -o compat=0.10 base 3M",
     "commit -q -b base top"},
    {"the L1 table moves", "qemu-img create -q -f qcow2 -o cluster_size=512 base 2M",
     "commit -q top"},
    {"bitmaps come along", "qemu-img create -q -f qcow2 base 3M && qemu-img bitmap --add base b",
     "commit -q --bitmaps=merge top"},
    {"bitmaps grow with the disk",
     "qemu-img create -q -f qcow2 -o cluster_size=512 base 2M && qemu-img bitmap --add -g 512 base "
     "b && qemu-img bitmap --add --disable -g 512 base d",
     "commit -q top"},
    {"a raw base", "qemu-img create -q -f raw base 3M", "commit -q -b base top", false}};

std::string format_of(const Scene& scene) {
  return scene.base_is_qcow2 ? "qcow2" : "raw";
}

void make_chain(const TempFolder& folder, const Scene& scene) {
  const std::string format = format_of(scene);
  sh(folder, scene.make_base);
  sh(folder, "qemu-io -f " + format + " -c 'write -P 1 0 1M' -c 'write -P 8 1500k 64k' base");
  const bool has_middle = scene.command.find(" -b ") != std::string::npos;
  if (has_middle) {
    sh(folder, "qemu-img create -q -f qcow2 -o cluster_size=4k -b base -F " + format + " mid");
    sh(folder, "qemu-io -c 'write -P 2 900k 300k' -c 'write -z 256k 128k' mid");
  }
  sh(folder, std::string("qemu-img create -q -f qcow2 -b ") +
                 (has_middle ? "mid -F qcow2" : "base -F " + format) +
                 " top 4M && qemu-img bitmap --add top b && qemu-img bitmap --add -g 4k top c");
  sh(folder,
     "qemu-io -c 'write -P 4 700k 8k' -c 'write -z 128k 64k' -c 'write -c -P 5 1536k 64k' "
     "-c 'write -P 6 2M 100k' -c 'write -P 7 3800k 10k' top");
  // Without holes, as they are put back later: a commit that goes on must find the same ones.
  for (const std::string image : {"base", "top"})
    testing::write_file(folder / image, read_file(folder / image));
}

// A commit that is stopped at its very end gives no storage back.
bool is_but_for_holes(const std::string& bytes, const std::string& expected) {
  return bytes == expected ||
         std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end(),
                    [](char a, char b) { return a == b || b == '\0'; });
}

class Images {
 public:
  Images(const TempFolder& folder, const Scene& scene)
      : folder_(folder),
        scene_(scene),
        base_(read_file(folder / "base")),
        top_(read_file(folder / "top")),
        expected_(content(folder, "top", "qcow2")) {}

  void restore() const {
    testing::write_file(folder_ / "base", base_);
    testing::write_file(folder_ / "top", top_);
    std::filesystem::remove(folder_ / "base.coldchain-pending");
    std::filesystem::remove(folder_ / "top.coldchain-pending");
  }

  [[nodiscard]] const std::string& expected() const { return expected_; }

  // Whoever comes now finds nothing worse than leaks, and reads what there was.
  void look_on_the_way() const {
    CHECK((content(folder_, "top", "qcow2") == expected_));
    CHECK(badness(folder_, "top") <= 1);
    if (scene_.base_is_qcow2)
      CHECK(badness(folder_, "base") <= 1);
    if (scene_.name.find("snapshot") != std::string::npos)
      CHECK(run_in(folder_.path(),
                   "qemu-img convert -l s -O raw base s && "
                   "qemu-io -f raw -c 'read -P 9 1600k 400k' s | grep -c 'failed'")
                .out == "0\n");
  }

  // Where it was given up in between, clusters lie elsewhere.
  void look_at_the_end(const std::string& committed_base, const std::string& committed_top,
                       bool was_given_up) const {
    look_on_the_way();
    CHECK((content(folder_, "base", format_of(scene_)) == expected_));
    if (scene_.command.find("--bitmaps") != std::string::npos)
      CHECK(run_in(folder_.path(), "qemu-img info base | grep -c 'name: [bc]'").out == "2\n");
    CHECK((was_given_up || is_but_for_holes(read_file(folder_ / "base"), committed_base)));
    CHECK((was_given_up || read_file(folder_ / "top") == committed_top));
    CHECK_FALSE(std::filesystem::exists(folder_ / "top.coldchain-pending"));
    CHECK_FALSE(std::filesystem::exists(folder_ / "base.coldchain-pending"));
  }

 private:
  const TempFolder& folder_;
  const Scene& scene_;
  std::string base_;
  std::string top_;
  std::string expected_;
};

// Of a side file: docs/formats/journal.md. 0: there is none.
enum class State : unsigned char { none = 0, done = 2, writing = 5, linking = 6 };

State state_of(const TempFolder& folder, const std::string& image) {
  const std::string path = folder / (image + ".coldchain-pending");
  if (!std::filesystem::exists(path))
    return State::none;
  const std::string bytes = read_file(path);
  return bytes.size() < 4100 ? State::none : State{static_cast<unsigned char>(bytes[4099])};
}

enum class Way { abandon_first, resume_top, resume_base, same_command };

void go_on(const TempFolder& folder, const Scene& scene, Way way) {
  if (way == Way::abandon_first) {
    const Process abandoned = run_program(folder, "resume --abandon top");
    CHECK_MESSAGE(abandoned.status == 0, abandoned.err);
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
    CHECK_FALSE(std::filesystem::exists(folder / "base.coldchain-pending"));
  }
  // Where nothing had begun, there is nothing to resume.
  if (way == Way::resume_top) {
    const Process resumed = run_program(folder, "resume top");
    CHECK_MESSAGE(resumed.status == 0, resumed.err);
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
    CHECK_FALSE(std::filesystem::exists(folder / "base.coldchain-pending"));
  }
  if (way == Way::resume_base && state_of(folder, "top") != State::none) {
    const Process resumed = run_program(folder, "resume base");
    CHECK_MESSAGE(resumed.status == 0, resumed.err);
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
    CHECK_FALSE(std::filesystem::exists(folder / "base.coldchain-pending"));
  }
  const Process again = run_program(folder, scene.command);
  CHECK_MESSAGE(again.status == 0, again.err);
}

// Kills a commit as soon as the side files are in these states, and tells at which flush that was;
// those before `first` need not be tried.
int stop_where(const TempFolder& folder, const Images& images, State top, State base,
               int first = 1) {
  for (int when = first; when < 100; ++when) {
    images.restore();
    REQUIRE(run_until(folder, "fsync", "signal=KILL", when, "commit -q top").status != 0);
    if (state_of(folder, "top") == top && state_of(folder, "base") == base)
      return when;
  }
  FAIL("these states were not met");
  return 0;
}

}  // namespace

TEST_CASE("crash: a top is not emptied where the base lost what it got") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  make_chain(folder, scenes.front());
  const Images images(folder, scenes.front());
  for (const State top : {State::writing, State::linking}) {
    CAPTURE(static_cast<int>(top));
    stop_where(folder, images, top, State::done);
    const std::string whole = read_file(folder / "top");
    sh(folder, "qemu-io -c 'write -P 99 704k 4k' base");
    for (const std::string command : {"resume top", "resume base", "commit -q top"}) {
      const Process ran = run_program(folder, command);
      CHECK(ran.status == 1);
      CHECK_MESSAGE(ran.err.find("ritten to") != std::string::npos, ran.err);
    }
    CHECK((read_file(folder / "top") == whole));
    images.look_on_the_way();
  }
}

TEST_CASE("crash: a base whose top lost its side file, or is gone, is told how to go on") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  make_chain(folder, scenes.front());
  const Images images(folder, scenes.front());
  for (const std::string command : {"resume base", "resume top"}) {
    stop_where(folder, images, State::writing, State::done);
    std::filesystem::remove(folder / "top.coldchain-pending");
    images.look_on_the_way();
    const std::string whole = read_file(folder / "top");
    // The base has all, but who reads it may be another one by now.
    CHECK(run_program(folder, command).status == 0);
    CHECK_FALSE(std::filesystem::exists(folder / "base.coldchain-pending"));
    CHECK((read_file(folder / "top") == whole));
    images.look_on_the_way();
  }
  stop_where(folder, images, State::writing, State::done);
  std::filesystem::remove(folder / "top");
  const Process gone = run_program(folder, "resume --abandon base");
  CHECK(gone.status == 1);
  CHECK(gone.err.find("mv " + (folder / "base.coldchain-pending") + " " +
                      (folder / "base.coldchain-given-up")) != std::string::npos);
  std::filesystem::rename(folder / "base.coldchain-pending", folder / "base.coldchain-given-up");
  CHECK(badness(folder, "base") <= 1);
  CHECK(run_program(folder, "check -q base").status % 3 == 0);
}

TEST_CASE("crash: a commit whose giving up was killed is given up, whoever leads to it") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  make_chain(folder, scenes[1]);
  const Images images(folder, scenes[1]);
  struct Row {
    State top;
    State base;
  };
  for (const Row& row : {Row{State::writing, State::writing}, Row{State::linking, State::done},
                         Row{State::done, State::done}}) {
    int met = 0;
    int stopped = 1;
    for (int when = 1; when < 10; ++when) {
      for (const Way way : {Way::same_command, Way::resume_top, Way::abandon_first}) {
        CAPTURE(static_cast<int>(row.top));
        CAPTURE(when);
        CAPTURE(static_cast<int>(way));
        stopped = stop_where(folder, images, row.top, row.base, stopped);
        (void)run_until(folder, "fsync", "signal=KILL", when, "resume --abandon top");
        images.look_on_the_way();
        const bool only_base_knows =
            state_of(folder, "top") == State::none && state_of(folder, "base") == row.base;
        go_on(folder, scenes[1], way);
        images.look_at_the_end("", "", true);
        if (!only_base_knows)
          break;
        ++met;
      }
    }
    CHECK((row.top == State::done || met == 3));
  }
}

TEST_CASE("crash: who reads a base since a commit into it was given up reads the same on") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  make_chain(folder, scenes[0]);
  const Images images(folder, scenes[0]);
  for (const std::string command : {"resume top", "resume base", "commit -q top"}) {
    CAPTURE(command);
    stop_where(folder, images, State::writing, State::writing);
    (void)run_until(folder, "fsync", "signal=KILL", 1, "resume --abandon top");
    REQUIRE(state_of(folder, "top") == State::none);
    REQUIRE(state_of(folder, "base") == State::writing);
    sh(folder, "qemu-img create -q -f qcow2 -b base -F qcow2 other");
    const std::string read = content(folder, "other", "qcow2");
    const Process ran = run_program(folder, command);
    CHECK(ran.status == (command.starts_with("commit") ? 1 : 0));
    CHECK(ran.out.find("mmitted") == std::string::npos);
    CHECK((content(folder, "other", "qcow2") == read));
    images.look_on_the_way();
    std::filesystem::remove(folder / "other");
  }
}

TEST_CASE("crash: overlays are ended, and told of, also where the commit began without them") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const TempFolder folder;
  make_chain(folder, scenes[0]);
  sh(folder, "qemu-img create -q -f qcow2 -b top -F qcow2 over && qemu-io -c 'write 3M 4k' over");
  const std::string overlay = read_file(folder / "over");
  const std::string expected = content(folder, "over", "qcow2");
  const Images images(folder, scenes[0]);
  int met = 0;
  int stopped = 1;
  for (int when = 1; when < 30; ++when) {
    CAPTURE(when);
    testing::write_file(folder / "over", overlay);
    stopped = stop_where(folder, images, State::writing, State::writing, stopped);
    if (run_until(folder, "fsync", "signal=KILL", when, "commit -q --reparent --yes top").status ==
        0)
      break;
    const bool is_known = std::filesystem::exists(folder / "over.coldchain-pending");
    const Process given_up = run_program(folder, "resume --abandon top");
    CHECK_MESSAGE(given_up.status == 0, given_up.err);
    CHECK_FALSE(std::filesystem::exists(folder / "over.coldchain-pending"));
    CHECK((content(folder, "over", "qcow2") == expected));
    if (run_in(folder.path(), "qemu-img info over | grep -c 'backing file: base'").out == "0\n")
      continue;
    met += is_known ? 1 : 0;
    const bool is_told = given_up.out.find("Do not change base") != std::string::npos ||
                         given_up.out.find("Nothing is pending") != std::string::npos ||
                         given_up.err.find("the commit is done") != std::string::npos;
    CHECK_MESSAGE(is_told, given_up.out);
  }
  CHECK(met != 0);
}

TEST_CASE("crash: a commit that is killed or fails anywhere changes nothing that the guest reads") {
  if (!testing::have_oracles() || !have_strace()) {
    MESSAGE("skipped: strace or QEMU's tools cannot be used");
    return;
  }
  // Else every 24th call, beginning with another one for each scene, call and way to stop.
  const bool does_all = std::getenv("COLDCHAIN_CRASH_ALL") != nullptr;
  int turn = 0;
  for (const Scene& scene : scenes) {
    CAPTURE(scene.name);
    const TempFolder folder;
    make_chain(folder, scene);
    const Images images(folder, scene);
    REQUIRE(run_program(folder, scene.command).status == 0);
    const std::string base = read_file(folder / "base");
    const std::string top = read_file(folder / "top");
    images.look_at_the_end(base, top, false);
    for (const std::string& call : calls) {
      for (const bool kills : {true, false}) {
        const std::string what = kills ? "signal=KILL" : "error=ENOSPC";
        ++turn;
        for (int when = 1; when < 100; ++when) {
          if (!does_all && (when + turn) % 24 != 0)
            continue;
          CAPTURE(call);
          CAPTURE(what);
          CAPTURE(when);
          images.restore();
          const testing::Stopped stopped = run_until(folder, call, what, when, scene.command);
          if (!stopped.has_met)
            break;
          if (stopped.status == 0) {  // the call only helps, or the journal lies elsewhere
            images.look_at_the_end(base, top, false);
            continue;
          }
          images.look_on_the_way();
          const Way way{when / 2 % 4};
          go_on(folder, scene, way);
          images.look_at_the_end(base, top, way == Way::abandon_first);
        }
      }
    }
  }
}

TEST_CASE(
    "crash: overlays that are reparented read the same at every moment, and all are at the end") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const std::uint64_t samples = 3 * testing::number_in("COLDCHAIN_CRASH_SEEDS", 3);
  const TempFolder folder;
  sh(folder,
     "qemu-img create -q -f qcow2 base 8M && qemu-io -c 'write -P 1 0 1M' -c 'write -P 8 6M "
     "1M' base && qemu-img create -q -f qcow2 -b base -F qcow2 top 4M && "
     "qemu-io -c 'write -P 4 700k 8k' -c 'write -P 6 2M 100k' top");
  for (const std::string overlay : {"one", "two"})
    sh(folder, "qemu-img create -q -f qcow2 -b top -F qcow2 " + overlay +
                   " 8M && qemu-io -c 'write -P 9 3M 100k' " + overlay);
  const std::string expected = content(folder, "one");
  const std::string command = "commit -q --reparent --yes top";
  const testing::PowerLoss lost(folder, command);
  for (std::uint64_t sample = 0; sample < samples; ++sample) {
    testing::Draw draw(sample);
    const std::size_t steps = draw.below(lost.steps() + 1);
    CAPTURE(sample);
    CAPTURE(steps);
    lost.leave(steps, draw);
    for (const std::string overlay : {"one", "two"}) {
      CHECK((content(folder, overlay) == expected));
      CHECK(badness(folder, overlay) <= 1);
    }
    if (draw.chance(40)) {
      const Process resumed = run_program(folder, "resume top");
      CHECK_MESSAGE(resumed.status == 0, resumed.err);
    }
    for (const std::string overlay : {"one", "two"}) {
      const Process resumed = run_program(folder, "resume " + overlay);
      CHECK_MESSAGE(resumed.status == 0, resumed.err);
    }
    const Process again = run_program(folder, command);
    CHECK_MESSAGE(again.status == 0, again.err);
    for (const std::string overlay : {"one", "two"}) {
      CHECK((content(folder, overlay) == expected));
      CHECK(badness(folder, overlay) == 0);
      CHECK(run_in(folder.path(), "qemu-img info " + overlay + " | grep -c 'file: base'").out ==
            "1\n");
    }
  }
}

TEST_CASE(
    "crash: what was left of a reparenting does not lead to a base that shows something else") {
  if (!testing::have_oracles() || !have_strace())
    return;
  struct Case {
    std::string base_options;
    std::string then;
  };
  // With small clusters the L1 table moves, too.
  for (const Case& each : std::vector<Case>{{"", "resume --abandon top"},
                                            {"", "resume top"},
                                            {"-o cluster_size=512", "resume --abandon top"},
                                            {"-o cluster_size=512", "resume base"}}) {
    for (int when = 15; when <= 33; when += 2) {
      CAPTURE(when);
      CAPTURE(each.base_options);
      CAPTURE(each.then);
      const TempFolder folder;
      sh(folder, "qemu-img create -q -f qcow2 " + each.base_options +
                     " base 2M && qemu-io -c 'write -P 1 0 1900k' base && "
                     "qemu-img create -q -f qcow2 -b base -F qcow2 top 4M && qemu-io -c 'write -P "
                     "4 700k 8k' top && qemu-img create -q -f qcow2 -b top -F qcow2 one");
      const std::string expected = content(folder, "one");
      (void)run_until(folder, "fsync", "signal=KILL", when, "commit -q --reparent --yes top");
      const Process ended = run_program(folder, each.then);
      CHECK_MESSAGE(ended.status == 0, ended.err);
      CHECK_FALSE(std::filesystem::exists(folder / "one.coldchain-pending"));
      CHECK(badness(folder, "base") <= 1);
      // Whoever reads through the top needs the base no more.
      CHECK(run_program(folder, "pull -q top").status == 0);
      if (run_in(folder.path(), "qemu-img info one | grep 'file: top'").status == 0)
        sh(folder, "qemu-io -c 'write -P 9 0 1M' base");
      CHECK(run_program(folder, "resume one").status == 0);
      CHECK((content(folder, "one") == expected));
    }
  }
}

TEST_CASE("crash: what a machine without power leaves of a commit reads the same, and goes on") {
  if (!testing::have_oracles() || !have_strace())
    return;
  const std::uint64_t samples = testing::number_in("COLDCHAIN_CRASH_SEEDS", 3);
  std::uint64_t seed = 0;
  for (const Scene& scene : scenes) {
    CAPTURE(scene.name);
    const TempFolder folder;
    make_chain(folder, scene);
    const Images images(folder, scene);
    const testing::PowerLoss lost(folder, scene.command);
    const std::string base = read_file(folder / "base");
    const std::string top = read_file(folder / "top");
    for (std::uint64_t sample = 0; sample < samples; ++sample) {
      testing::Draw draw(++seed);
      const std::size_t steps = draw.below(lost.steps() + 1);
      CAPTURE(seed);
      CAPTURE(steps);
      lost.leave(steps, draw);
      images.look_on_the_way();
      const Way way{static_cast<int>(draw.below(4))};
      go_on(folder, scene, way);
      images.look_at_the_end(base, top, way == Way::abandon_first);
    }
  }
}

TEST_CASE("crash: a commit that is killed at any moment, and again on its way, ends all the same") {
  if (!testing::have_oracles())
    return;
  const std::uint64_t seeds = testing::number_in("COLDCHAIN_CRASH_SEEDS", 3);
  for (const Scene& scene : scenes) {
    CAPTURE(scene.name);
    const TempFolder folder;
    make_chain(folder, scene);
    const Images images(folder, scene);
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      CAPTURE(seed);
      testing::Draw draw(seed);
      images.restore();
      (void)testing::run_for(folder, 1 + draw.below(300), scene.command);
      images.look_on_the_way();
      for (int again = 0; again < 2; ++again) {
        (void)testing::run_for(folder, 1 + draw.below(200),
                               draw.chance(50) ? "resume top" : "resume --abandon top");
        images.look_on_the_way();
      }
      go_on(folder, scene, Way::same_command);
      images.look_at_the_end("", "", true);
    }
  }
}
