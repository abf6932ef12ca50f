// SPDX-License-Identifier: MIT
// A compressed stream either fills the cluster or is refused; both codecs, several cluster sizes.
// The first byte chooses.
#include "fuzz_files.hpp"

#include <coldchain/codec/codec.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  if (size == 0)
    return 0;
  Bytes cluster(std::size_t{512} << (data[0] % 8));
  const Bytes stream = fuzz::to_bytes(data + 1, size - 1);
  if ((data[0] & 0x80) != 0)
    (void)codec::unzstd(stream, cluster);
  else
    (void)codec::inflate(stream, cluster);
  return 0;
}
