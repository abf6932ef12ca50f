// SPDX-License-Identifier: MIT
// The program itself, stopped by strace at a call, or with that call failing; and what is asked of
// the images then.
#pragma once

#include "process.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

namespace coldchain::testing {

// Not every place lets one process stop another.
inline bool have_strace() {
  static const bool works = run_in("/", "strace -e trace=none true").status == 0;
  if (!works && std::getenv("COLDCHAIN_REQUIRE_ORACLES") != nullptr)
    FAIL("strace is missing, or may not be used here");
  return works;
}

inline Process run_program(const TempFolder& folder, const std::string& arguments) {
  return run_in(folder.path(), COLDCHAIN_PROGRAM " " + arguments);
}

struct Stopped : Process {
  bool has_met = false;  // there was such a call: it failed, or the program was killed there
};

// Does `what` to the `when`-th `call`. The leak check of the sanitizers does not go with strace.
inline Stopped run_until(const TempFolder& folder, const std::string& call, const std::string& what,
                         int when, const std::string& arguments) {
  const std::string log = folder.path() + ".calls";
  Stopped stopped{run_in(folder.path(), "ASAN_OPTIONS=detect_leaks=0 strace -f -s 0 -o " + log +
                                            " -e trace=" + call + " -e inject=" + call + ":" +
                                            what + ":when=" + std::to_string(when) +
                                            " " COLDCHAIN_PROGRAM " " + arguments)};
  const std::string calls = read_file(log);
  stopped.has_met = calls.find("(INJECTED)") != std::string::npos ||
                    calls.find("killed by SIGKILL") != std::string::npos;
  std::filesystem::remove(log);
  return stopped;
}

// Removes what a repair of an image leaves in the state folder, if a call failed that would have
// put it beside the image.
inline void forget_in_state_folder(const std::string& image) {
  struct stat facts = {};
  REQUIRE(::stat(image.c_str(), &facts) == 0);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/var/lib/coldchain", ignored)) {
    if (entry.path().filename().string().starts_with(fmt::format("file-{:x}-", facts.st_ino)))
      std::filesystem::remove(entry.path(), ignored);
  }
}

// Kills it after so many milliseconds, unless it ends before.
inline Process run_for(const TempFolder& folder, std::uint64_t milliseconds,
                       const std::string& arguments) {
  return run_in(folder.path(), "timeout -s KILL " + std::to_string(milliseconds / 1000) + "." +
                                   std::to_string(1000 + milliseconds % 1000).substr(1) +
                                   " " COLDCHAIN_PROGRAM " " + arguments);
}

// How many bytes a run of the program wrote.
inline std::uint64_t written_bytes(const TempFolder& folder, const std::string& how,
                                   const std::string& arguments) {
  const Process ran =
      run_in(folder.path(),
             "ASAN_OPTIONS=detect_leaks=0 strace -f -s 0 -o calls -e trace=pwrite64 " + how +
                 " " COLDCHAIN_PROGRAM " " + arguments +
                 "; awk '/pwrite64/ { sum += $NF } END { printf \"%d\", sum }' calls; rm calls");
  return std::strtoull(ran.out.c_str(), nullptr, 10);
}

// How bad qemu-img check finds an image: 0: clean, 1: leaks, 2: worse.
inline int badness(const TempFolder& folder, const std::string& image) {
  const int status = run_in(folder.path(), "qemu-img check -q -f qcow2 " + image).status;
  return status == 0 ? 0 : status == 3 ? 1 : 2;
}

// What QEMU reads through an image.
inline std::string content(const TempFolder& folder, const std::string& image,
                           const std::string& format = "qcow2") {
  const Process ran = run_in(folder.path(), "qemu-img convert -f " + format + " -O raw " + image +
                                                " content && cat content");
  return ran.status == 0 ? ran.out : "cannot be read: " + ran.err;
}

// A command that makes a scene.
inline void sh(const TempFolder& folder, const std::string& command) {
  const Process ran = run_in(folder.path(), command);
  REQUIRE_MESSAGE(ran.status == 0, command << ran.err);
}

}  // namespace coldchain::testing
