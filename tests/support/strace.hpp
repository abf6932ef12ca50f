// SPDX-License-Identifier: MIT
// The program itself, stopped by strace at a call, or with that call failing.
#pragma once

#include "process.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

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

// Does `what` to the `when`-th `call`. The leak check of the sanitizers does not go with strace.
inline Process run_until(const TempFolder& folder, const std::string& call, const std::string& what,
                         int when, const std::string& arguments) {
  return run_in(folder.path(),
                "ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace=" + call +
                    " -e inject=" + call + ":" + what + ":when=" + std::to_string(when) +
                    " " COLDCHAIN_PROGRAM " " + arguments);
}

}  // namespace coldchain::testing
