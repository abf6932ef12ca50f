// SPDX-License-Identifier: MIT
// coldchain and qemu-img side by side, both in the same current directory.
#pragma once

#include "fake_world.hpp"
#include "process.hpp"

#include <filesystem>

#include <doctest/doctest.h>

namespace coldchain::testing {

inline Ran run_coldchain_in(const std::string& folder, const std::vector<std::string>& arguments) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder);
  Ran ran = run_coldchain(arguments);
  std::filesystem::current_path(before);
  return ran;
}

// The same output and exit status for the same arguments.
inline void check_like_qemu_img(const std::string& folder,
                                const std::vector<std::string>& arguments) {
  std::string command = "qemu-img";
  for (const std::string& argument : arguments)
    command += " " + quoted(argument);
  CAPTURE(command);
  const Process theirs = run_in(folder, command);
  const Ran mine = run_coldchain_in(folder, arguments);
  CHECK(mine.status == theirs.status);
  CHECK(mine.out == theirs.out);
}

}  // namespace coldchain::testing
