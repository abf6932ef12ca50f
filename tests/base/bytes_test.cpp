// SPDX-License-Identifier: MIT
#include <coldchain/base/bytes.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("load: yields the struct at an offset and nothing where the view ends before it") {
  const Bytes bytes = {std::byte{1}, std::byte{2}, std::byte{3}};
  REQUIRE(load<be16>(bytes, 1).has_value());
  CHECK(load<be16>(bytes, 1)->get() == 0x0203);
  CHECK_FALSE(load<be16>(bytes, 2).has_value());
  CHECK_FALSE(load<be16>(bytes, ~std::size_t{0}).has_value());
}

TEST_CASE("append: what is appended is loaded again") {
  Bytes bytes(3);
  append(bytes, be64(0x0102030405060708));
  CHECK(load<be64>(bytes, 3)->get() == 0x0102030405060708);
}
