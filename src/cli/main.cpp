// SPDX-License-Identifier: MIT
#include <sys/resource.h>

#include "app.hpp"

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
