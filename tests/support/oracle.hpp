// SPDX-License-Identifier: MIT
// coldchain and qemu-img side by side, both in the same current directory.
#pragma once

#include "fake_world.hpp"
#include "process.hpp"

#include <filesystem>

#include <doctest/doctest.h>

namespace coldchain::testing {

// In the world's place, which may be one that is interrupted.
inline Ran run_coldchain_in(const std::string& folder, const std::vector<std::string>& arguments,
                            FakeWorld& world) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder);
  const int status = cli::run(arguments, world);
  std::filesystem::current_path(before);
  return {status, world.out_text, world.err_text};
}

inline Ran run_coldchain_in(const std::string& folder, const std::vector<std::string>& arguments) {
  FakeWorld world;
  return run_coldchain_in(folder, arguments, world);
}

// Stopped by a signal at the first safe point.
inline Ran interrupt_coldchain_in(const std::string& folder,
                                  const std::vector<std::string>& arguments) {
  FakeWorld world;
  world.interrupted = true;
  return run_coldchain_in(folder, arguments, world);
}

// Makes an encrypted image of 1 MiB; `options` come behind the format. qemu-img measures how long a
// key takes, and fails now and then.
inline bool create_encrypted(const std::string& folder, const std::string& name,
                             const std::string& format, const std::string& options = "") {
  for (int attempt = 0; attempt < 25; ++attempt) {
    const std::string time = format == "luks" ? ",encrypt.iter-time=50" : "";
    if (run_in(folder,
               "qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o "
               "encrypt.key-secret=s,encrypt.format=" +
                   format + options + time + " " + name + " 1M")
            .status == 0)
      return true;
  }
  return false;
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
