// SPDX-License-Identifier: MIT
// Runs a fuzz target over the files of a folder, each in a buffer of exactly its size, so that a
// read past the end is seen by AddressSanitizer.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  int count = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      const auto exact = std::make_unique<std::uint8_t[]>(text.size());
      std::copy(text.begin(), text.end(), exact.get());
      LLVMFuzzerTestOneInput(exact.get(), text.size());
      ++count;
    }
  }
  std::printf("%d inputs\n", count);
  return count == 0 ? 1 : 0;
}
