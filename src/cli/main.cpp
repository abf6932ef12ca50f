// SPDX-License-Identifier: MIT
#include "app.hpp"

#include <sys/resource.h>

namespace {

// A chain may have a thousand layers, each with an open file.
void raise_file_limit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

int main(int argc, char** argv) {
  raise_file_limit();
  const auto world = coldchain::cli::real_world();
  return coldchain::cli::run(std::vector<std::string>(argv + 1, argv + argc), *world);
}
