// SPDX-License-Identifier: MIT
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>

using namespace coldchain::qcow2;

TEST_CASE("L1Entry: flags and reserved bits are not part of the offset") {
  const L1Entry entry(copied_flag | 0x7f00'0000'0000'01ff | 0x50000);
  CHECK(entry.l2_table().value == 0x50000);
  CHECK(entry.has_l2_table());
  CHECK_FALSE(L1Entry(copied_flag | 0x1ff).has_l2_table());
}

TEST_CASE("L2Entry: a compressed entry's sector count and offset share the bits by cluster size") {
  // 64 KiB clusters: bits 0-53 are the offset, bits 54-61 count sectors beyond the first.
  const L2Entry entry(compressed_flag | 3ULL << 54 | 0x12345);
  const CompressedExtent extent = entry.compressed_extent(16);
  CHECK(extent.begin.value == 0x12345);
  CHECK(extent.max_bytes == 4 * 512 - 0x145);
  // 512 byte clusters: bits 0-60 are the offset, bit 61 the count.
  CHECK(L2Entry(compressed_flag | 1ULL << 61 | 512).compressed_extent(9).max_bytes == 1024);
  // 2 MiB clusters: bits 0-48 are the offset.
  const CompressedExtent large =
      L2Entry(compressed_flag | 0xfffULL << 49 | 7).compressed_extent(21);
  CHECK(large.begin.value == 7);
  CHECK(large.max_bytes == 0x1000 * 512 - 7);
}

TEST_CASE("SubclusterBitmap: the low half says allocated, the high half zero") {
  const SubclusterBitmap bitmap(0x8000'0001'0000'00ff);
  CHECK(bitmap.allocated() == 0xff);
  CHECK(bitmap.zero() == 0x8000'0001);
}
