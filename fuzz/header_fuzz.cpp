// SPDX-License-Identifier: MIT
// A header that is accepted is encoded to the bytes that it was read from; the tables of snapshots
// and bitmaps that it points at are decoded without harm.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/image.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  const Bytes input = fuzz::to_bytes(data, size);
  const Result<qcow2::Header> header = qcow2::decode_header(input);
  if (!header)
    return 0;
  const Result<qcow2::Header> again = qcow2::decode_header([&] {
    Bytes encoded = qcow2::encode_header(*header);
    if (encoded.size() < input.size())
      encoded.insert(encoded.end(), input.begin() + static_cast<std::ptrdiff_t>(encoded.size()),
                     input.end());
    return encoded;
  }());
  if (!again || *again != *header)
    std::abort();
  (void)header->unknown_incompatible_names();
  const io::MemoryFile file(input);
  (void)qcow2::read_snapshots(file, *header);
  (void)qcow2::check_extensions(*header);
  if (const auto bitmaps = qcow2::read_bitmaps(file, *header)) {
    for (const qcow2::Bitmap& bitmap : *bitmaps)
      (void)qcow2::check_bitmap(bitmap, *header);
  }
  (void)qcow2::read_luks(file, *header);
  if (const auto refcounts = qcow2::Refcounts::open(file, *header)) {
    (void)refcounts->image_end();
    (void)refcounts->count_used(1000, 100);
  }
  return 0;
}
