// SPDX-License-Identifier: MIT
// Other programs, run by the shell: the oracles. Standard error is kept apart.
#pragma once

#include <string>
#include <vector>

namespace coldchain::testing {

struct Process {
  int status = 0;
  std::string out;
  std::string err;
};

[[nodiscard]] std::string quoted(const std::string& word);

// Runs a shell command in `folder`; ends it after a minute.
[[nodiscard]] Process run_in(const std::string& folder, const std::string& command);

// Whether the oracles are installed. With COLDCHAIN_REQUIRE_ORACLES set, a missing one ends the
// test run as a failure instead of a skip.
[[nodiscard]] bool have_oracles();

}  // namespace coldchain::testing
