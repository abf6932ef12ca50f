// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <chrono>
#include <filesystem>
#include <map>
#include <regex>
#include <thread>

#include <doctest/doctest.h>

using namespace coldchain;
using cli::ProgressMeter;
using testing::FakeWorld;
using testing::Process;
using testing::Ran;
using testing::TempFolder;

namespace {

constexpr std::uint64_t mib = 1 << 20;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Two images whose copy takes more than one piece, of 8 MiB at most.
void make_chain(const std::string& folder, std::uint64_t clusters = 300) {
  testing::ImageOptions options;
  options.size = 64 * mib;
  testing::ImageBuilder(options).build().write_to(folder + "/base");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  testing::ImageBuilder top(options);
  for (std::uint64_t cluster = 0; cluster < clusters; ++cluster)
    top.data(cluster, 't');
  top.build().write_to(folder + "/top");
}

// An image of a layer that has the data of `top`.
void pull_down(const TempFolder& folder) {
  REQUIRE(testing::run_coldchain_in(folder.path(), {"commit", "-d", "top"}).status == 0);
  testing::ImageOptions options;
  options.size = 64 * mib;
  options.backing_file = "base";
  options.backing_format = "qcow2";
  testing::ImageBuilder(options).build().write_to(folder / "top");
}

// Begins a slow command, sends it signals when it shows the first progress, and says how it ended.
Process stop_with(const std::string& folder, const std::string& command,
                  const std::string& signals) {
  return testing::run_in(
      folder, command +
                  " 2>progress & pid=$!; until grep -q % progress; do sleep 0.02; done; for s in " +
                  signals + "; do kill -$s $pid; sleep 0.3; done; wait $pid; status=$?; " +
                  "cat progress >&2; exit $status");
}

}  // namespace

TEST_CASE("progress: a line begins as qemu-img's, then has bytes, rate and time left") {
  FakeWorld world;
  ProgressMeter meter(world, true);
  const Progress progress = meter.progress();
  CHECK(progress({.total = 4 * mib}));
  CHECK(world.err_text == "    (0.00/100%)  0 B of 4 MiB\r");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(progress({.done = mib, .total = 4 * mib}));
  CHECK(std::regex_match(
      world.err_text,
      std::regex("    \\(0.00/100%\\)  0 B of 4 MiB\r"
                 "    \\(25.00/100%\\)  1 MiB of 4 MiB, 1\\.[0-9]+ MiB/s, 0:02 left\r")));
  meter.finish();
  CHECK(world.err_text.find("    (100.00/100%)  4 MiB of 4 MiB") != std::string::npos);
  CHECK(world.err_text.ends_with("\n"));
}

TEST_CASE("progress: later parts count from the beginning") {
  FakeWorld world;
  ProgressMeter meter(world, true);
  meter.expect(3 * mib);
  (void)meter.progress()({.done = mib, .total = mib});
  CHECK(world.err_text == "    (25.00/100%)  1 MiB of 4 MiB\r");
  meter.begin_part();
  world.err_text.clear();
  world.progress_requests = 1;
  (void)meter.progress()({.done = mib, .total = 3 * mib});
  CHECK(world.err_text.starts_with("    (50.00/100%)  2 MiB of 4 MiB"));
}

TEST_CASE("progress: a request is answered once, also where no progress is shown") {
  FakeWorld world;
  ProgressMeter meter(world, false);
  const Progress progress = meter.progress();
  CHECK(progress({.done = mib, .total = 2 * mib}));
  CHECK(world.err_text.empty());
  world.progress_requests = 1;
  CHECK(progress({.done = mib, .total = 2 * mib}));
  CHECK(progress({.done = mib, .total = 2 * mib}));
  CHECK(world.err_text == "    (50.00/100%)  1 MiB of 2 MiB\n");
}

TEST_CASE("progress: a rate holds what is written, and not what was there") {
  FakeWorld world;
  CHECK(seconds_of([&] {
          ProgressMeter meter(world, false, mib);
          const Progress progress = meter.progress();
          CHECK(progress({.total = 100 * mib}));
          CHECK(progress({.done = 99 * mib, .total = 100 * mib, .found = 99 * mib}));
        }) < 0.2);
  CHECK(seconds_of([&] {
          ProgressMeter meter(world, false, mib);
          const Progress progress = meter.progress();
          CHECK(progress({.total = 100 * mib}));
          CHECK(progress({.done = 99 * mib + mib / 4, .total = 100 * mib, .found = 99 * mib}));
        }) >= 0.25);
}

TEST_CASE("progress: whoever waits for the rate stops at once") {
  FakeWorld world;
  world.interrupted = true;
  ProgressMeter meter(world, false, 1);
  CHECK_FALSE(meter.progress()({.done = mib, .total = 2 * mib}));
}

TEST_CASE("progress: each verb that copies shows it and takes a rate") {
  const std::vector<std::vector<std::string>> verbs{{"commit", "top"},
                                                    {"pull", "top"},
                                                    {"rebase", "-b", "", "top"},
                                                    {"allocate", "top"},
                                                    {"allocate", "--zero-fill", "top"}};
  for (std::vector<std::string> verb : verbs) {
    CAPTURE(verb.front());
    const TempFolder folder;
    make_chain(folder.path());
    // The data is where the verb takes it from.
    if (verb.front() != "commit")
      pull_down(folder);
    verb.insert(verb.end() - 1, {"-p", "-r", "1G"});
    const Ran ran = testing::run_coldchain_in(folder.path(), verb);
    CHECK_MESSAGE(ran.status == 0, ran.err);
    CHECK_MESSAGE(ran.err.find("    (100.00/100%)") != std::string::npos, ran.err);
    verb.end()[-2] = "fast";
    CHECK(testing::run_coldchain_in(folder.path(), verb).err.find("Invalid rate limit") !=
          std::string::npos);
  }
}

TEST_CASE("progress: check and repair show it") {
  const TempFolder folder;
  make_chain(folder.path());
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"check", "-p", "top"}, {"repair", "-p", "top"}, {"check", "-r", "all", "-p", "top"}}) {
    const Ran ran = testing::run_coldchain_in(folder.path(), verb);
    CHECK(ran.status == 0);
    CHECK_MESSAGE(ran.err.find("    (0.00/100%)  0 B of ") != std::string::npos, ran.err);
    CHECK_MESSAGE(ran.err.find("    (100.00/100%)  ") != std::string::npos, ran.err);
  }
  const Ran many = testing::run_coldchain_in(folder.path(), {"check", "-p", "top", "base"});
  CHECK_MESSAGE(many.err.find("(100.00/100%)  2 of 2 images") != std::string::npos, many.err);
}

TEST_CASE("progress: a copy that is resumed, or applied, does not wait for what is there") {
  for (const std::vector<std::string>& again :
       std::vector<std::vector<std::string>>{{"resume", "-p", "-r", "128k", "top"},
                                             {"commit", "-p", "-r", "128k", "top"},
                                             {"apply", "-p", "-r", "128k", "plan"}}) {
    const TempFolder folder;
    make_chain(folder.path(), 129);
    testing::write_file(
        folder / "plan",
        testing::run_coldchain_in(folder.path(), {"plan", "commit", "--output=json", "top"}).out);
    REQUIRE(testing::interrupt_coldchain_in(folder.path(), {"commit", "top"}).status ==
            testing::status_of_interrupted);
    Ran ran;
    const double seconds =
        seconds_of([&] { ran = testing::run_coldchain_in(folder.path(), again); });
    CHECK_MESSAGE(ran.status == 0, ran.err);
    CHECK_MESSAGE(ran.err.find("    (100.00/100%)  8.06 MiB of 8.06 MiB") != std::string::npos,
                  ran.err);
    CHECK(seconds >= 0.5);  // for the last cluster
    CHECK(seconds < 30);    // which 8 MiB would take more than
  }
}

TEST_CASE("progress: each signal that asks to stop ends the verb at a safe point with its status") {
  for (const auto& [signal, status] :
       std::map<std::string, int>{{"INT", 130}, {"TERM", 143}, {"HUP", 129}}) {
    const TempFolder folder;
    make_chain(folder.path());
    const Process stopped =
        stop_with(folder.path(), COLDCHAIN_PROGRAM " commit -p -r 1M top", signal);
    CHECK_MESSAGE(stopped.status == status, stopped.err);
    CHECK(stopped.err.find("interrupted") != std::string::npos);
    CHECK(testing::run_coldchain_in(folder.path(), {"resume", "top"}).status == 0);
  }
}

TEST_CASE("progress: a SIGHUP that was ignored when the verb began does not stop it") {
  const TempFolder folder;
  make_chain(folder.path());
  const Process stopped = stop_with(
      folder.path(), "trap '' HUP; " COLDCHAIN_PROGRAM " commit -p -r 1M top", "HUP TERM");
  CHECK_MESSAGE(stopped.status == 143, stopped.err);
}

TEST_CASE("progress: SIGUSR1 has a line of its own, and ends no verb") {
  const TempFolder folder;
  make_chain(folder.path());
  pull_down(folder);
  const Process told =
      stop_with(folder.path(), COLDCHAIN_PROGRAM " pull -p -r 1M top", "USR1 TERM");
  CHECK(told.status == 143);
  // What -p shows ends with a carriage return.
  CHECK_MESSAGE(std::regex_search(told.err, std::regex("/100%\\)[^\r\n]*\n")), told.err);
}
