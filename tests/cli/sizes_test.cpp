// SPDX-License-Identifier: MIT
#include "sizes.hpp"

#include <doctest/doctest.h>

using coldchain::cli::parse_size;

TEST_CASE("parse_size: takes qemu-img's suffixes in either case") {
  CHECK(parse_size("x", "0").value() == 0);
  CHECK(parse_size("x", "4096").value() == 4096);
  CHECK(parse_size("x", "64k").value() == 65536);
  CHECK(parse_size("x", "64K").value() == 65536);
  CHECK(parse_size("x", "1.5G").value() == 3ULL << 29);
  CHECK(parse_size("x", "2b").value() == 2);
  CHECK(parse_size("x", "15E").value() == 15ULL << 60);
}

TEST_CASE("parse_size: refuses what is no size or too large") {
  for (const char* text :
       {"", "-1", "k", "1x", "1kk", "1.5", "16E", "99999999999999999999", " 1", "1 "})
    CHECK_MESSAGE(!parse_size("x", text).has_value(), text);
}
