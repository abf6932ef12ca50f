// SPDX-License-Identifier: MIT
// The probe reads nothing but the first 512 bytes, takes missing ones for zeros, and answers with a
// format that has a driver. The first byte of the input chooses the name.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/graph/probe.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  if (size < 2)
    return 0;
  const std::string_view name = data[0] % 2 == 0 ? "disk" : "disk.dmg";
  const Bytes input = fuzz::to_bytes(data + 1, size - 1);
  const std::string_view format = graph::probe_format(input, name);
  if (!graph::is_known_format(format))
    std::abort();
  Bytes longer = input;
  longer.resize(std::max(longer.size(), graph::probed_bytes));
  if (graph::probe_format(longer, name) != format)
    std::abort();
  longer.resize(graph::probed_bytes);
  longer.insert(longer.end(), input.begin(), input.end());
  if (graph::probe_format(longer, name) != format)
    std::abort();
  return 0;
}
