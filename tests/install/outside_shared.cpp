// SPDX-License-Identifier: MIT
#include <cstdio>

extern "C" int count_layers(const char* path);

int main(int, char** argv) {
  std::printf("%d layers\n", count_layers(argv[1]));
}
