// SPDX-License-Identifier: MIT
#include "process.hpp"

#include "temp_folder.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include <sys/wait.h>

namespace coldchain::testing {

std::string quoted(const std::string& word) {
  std::string out = "'";
  for (const char c : word)
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

Process run_in(const std::string& folder, const std::string& command) {
  const TempFolder scratch;
  const std::string err_path = scratch / "err";
  const std::string line = "cd " + quoted(folder) + " && exec timeout 60 sh -c " + quoted(command) +
                           " 2>" + quoted(err_path) + " </dev/null";
  Process process;
  FILE* pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr)
    throw std::runtime_error("popen failed");
  std::array<char, 65536> buffer{};
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    process.out.append(buffer.data(), count);
  const int status = ::pclose(pipe);
  process.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  process.err = read_file(err_path);
  return process;
}

bool have_oracles() {
  const Process found = run_in(
      "/",
      "command -v qemu-img && command -v qemu-io && command -v qemu-nbd && command -v nbdinfo");
  if (found.status == 0)
    return true;
  if (std::getenv("COLDCHAIN_REQUIRE_ORACLES") != nullptr)
    throw std::runtime_error("an oracle is missing: qemu-img, qemu-io, qemu-nbd or nbdinfo");
  return false;
}

}  // namespace coldchain::testing
