// SPDX-License-Identifier: MIT
#include <coldchain/base/checked.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("checked arithmetic: tells an overflow from a result") {
  CHECK(checked_add(~0ULL - 1, 1) == ~0ULL);
  CHECK_FALSE(checked_add(~0ULL, 1).has_value());
  CHECK(checked_mul(1ULL << 32, (1ULL << 32) - 1) == 0xffff'ffff'0000'0000);
  CHECK_FALSE(checked_mul(1ULL << 32, 1ULL << 32).has_value());
}

TEST_CASE("alignment: rounds to powers of two in both directions") {
  CHECK(align_down(1023, 512) == 512);
  CHECK(align_up(513, 512) == 1024);
  CHECK(align_up(512, 512) == 512);
  CHECK(is_aligned(0, 512));
  CHECK_FALSE(is_aligned(1, 512));
}

TEST_CASE("divide_up: does not overflow at the top of the range") {
  CHECK(divide_up(0, 512) == 0);
  CHECK(divide_up(1, 512) == 1);
  CHECK(divide_up(~0ULL, 2) == 1ULL << 63);
}
