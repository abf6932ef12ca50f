// SPDX-License-Identifier: MIT
#include "app.hpp"

int main(int argc, char** argv) {
  const auto world = coldchain::cli::real_world();
  return coldchain::cli::run(std::vector<std::string>(argv + 1, argv + argc), *world);
}
