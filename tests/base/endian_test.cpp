// SPDX-License-Identifier: MIT
#include <coldchain/base/bytes.hpp>
#include <coldchain/base/endian.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("BigEndian: the most significant byte comes first") {
  const be32 value(0x01020304);
  const ByteView bytes = bytes_of(value);
  CHECK(bytes[0] == std::byte{1});
  CHECK(bytes[3] == std::byte{4});
  CHECK(value.get() == 0x01020304);
}

TEST_CASE("BigEndian: every width gives back what was stored") {
  CHECK(be16(0xfffe).get() == 0xfffe);
  CHECK(be64(0xfedcba9876543210).get() == 0xfedcba9876543210);
  CHECK(be64().get() == 0);
}
