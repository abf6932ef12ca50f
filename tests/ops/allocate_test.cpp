// SPDX-License-Identifier: MIT
#include <string>

#include <coldchain/ops/allocate.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using ops::Allocation;
using ops::Places;

TEST_CASE("allocation: its command leads back to it") {
  for (const Places places : {Places::thin, Places::reserve, Places::zero_fill}) {
    for (const std::optional<GuestRange>& range :
         {std::optional<GuestRange>(), std::optional(GuestRange{{5}, {1ULL << 60}})}) {
      const std::string command = ops::to_command({places, range});
      CAPTURE(command);
      const std::optional<Allocation> parsed = ops::parse_allocation(command);
      REQUIRE(parsed);
      CHECK(parsed->places == places);
      CHECK(parsed->range == range);
    }
  }
}

TEST_CASE("allocation: other words are none") {
  for (const char* words :
       {"", "pull", "allocate", "allocate ", "allocate --", "allocate --thick",
        "allocate --thinner", "allocate --thin ", "allocate --thin --range",
        "allocate --thin --range 5", "allocate --thin --range 5:", "allocate --thin --range :5",
        "allocate --thin --range -1:5", "allocate --thin --range 1:5x",
        "allocate --thin --range 1:18446744073709551615",
        "allocate --thin --range 1:99999999999999999999"})
    CHECK_FALSE(ops::parse_allocation(words));
}

TEST_CASE("allocation: a range becomes whole clusters, within the disk") {
  const auto whole = [](std::uint64_t begin, std::uint64_t end) {
    return ops::whole_clusters({Places::thin, GuestRange{{begin}, {end}}}, 4096, 10000);
  };
  CHECK(whole(5000, 5001).value() == GuestRange{{4096}, {8192}});
  CHECK(whole(4096, 8192).value() == GuestRange{{4096}, {8192}});
  CHECK(whole(0, 10000).value() == GuestRange{{0}, {10000}});
  CHECK(ops::whole_clusters({}, 4096, 10000).value() == GuestRange{{0}, {10000}});
  CHECK_FALSE(whole(5, 5));
  CHECK_FALSE(whole(9999, 10001));
  CHECK_FALSE(whole(20000, 20001));
}
