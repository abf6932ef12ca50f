// SPDX-License-Identifier: MIT
#include <map>
#include <random>

#include <coldchain/check/claims.hpp>

#include <doctest/doctest.h>

using coldchain::check::Claims;

TEST_CASE("Claims: counts as a map of counts does, at every width") {
  Claims claims(~0ULL);
  std::map<std::uint64_t, std::uint64_t> expected;
  std::mt19937_64 random(3);
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t first = random() % 4000;
    const std::uint64_t count = 1 + random() % 700;
    const std::uint64_t times = i % 50 == 0 ? 1 + random() % 100000 : 1;
    CHECK(claims.add(first, count, times).empty());
    for (std::uint64_t cluster = first; cluster < first + count; ++cluster)
      expected[cluster] += times;
  }
  for (std::uint64_t cluster = 0; cluster < 5000; ++cluster)
    CHECK(claims.at(cluster) == expected[cluster]);
}

TEST_CASE("Claims: words tell what is claimed and what is shared") {
  Claims claims(65535);
  (void)claims.add(64, 3);
  (void)claims.add(66, 2);
  CHECK(claims.word(64).claimed == 0b1111);
  CHECK(claims.word(64).shared == 0b0100);
  CHECK(claims.word(0).claimed == 0);
  CHECK(claims.end() == 68);
  CHECK(claims.word(1 << 20).claimed == 0);
}

TEST_CASE("Claims: what exceeds the width is returned and not counted") {
  Claims claims(3);
  CHECK(claims.add(5, 1, 3).empty());
  const auto overflow = claims.add(4, 3, 2);
  REQUIRE(overflow.size() == 1);
  CHECK(overflow[0].cluster == 5);
  CHECK(overflow[0].times == 2);
  CHECK(claims.at(5) == 3);
  CHECK(claims.at(4) == 2);
  Claims bits(1);
  CHECK(bits.add(7, 1).empty());
  CHECK(bits.add(7, 1).size() == 1);
}

TEST_CASE("Claims: far clusters cost no more than near ones") {
  Claims claims(65535);
  const std::uint64_t far = 1ULL << 44;
  CHECK(claims.add(far - 10, 20).empty());
  CHECK(claims.at(far) == 1);
  CHECK(claims.at(far + 10) == 0);
  CHECK(claims.end() == far + 10);
}
