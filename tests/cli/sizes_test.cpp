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
  CHECK(parse_size("x", "0x200").value() == 512);
  CHECK(parse_size("x", "0XfF").value() == 255);
  CHECK(parse_size("x", "7E").value() == 7ULL << 60);
}

TEST_CASE("parse_size: refuses what is no size or too large") {
  for (const char* text :
       {"", "-1", "0x", "0x1k", "0x1.8", "0x10000000000000000", "0x8000000000000000", "k", "1x",
        "1kk", "1.5", "8E", "16E", "99999999999999999999", " 1", "1 "})
    CHECK_MESSAGE(!parse_size("x", text).has_value(), text);
}
