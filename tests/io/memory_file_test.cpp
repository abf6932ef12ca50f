// SPDX-License-Identifier: MIT
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("read_at: yields what there is and no more") {
  const io::MemoryFile file(Bytes(10, std::byte{7}));
  Bytes buffer(8);
  CHECK(file.read_at({0}, buffer).value() == 8);
  CHECK(file.read_at({6}, buffer).value() == 4);
  CHECK(file.read_at({10}, buffer).value() == 0);
  CHECK(file.read_at({~0ULL}, buffer).value() == 0);
}

TEST_CASE("read_exactly: says where the file ends") {
  const io::MemoryFile file(Bytes(10));
  Bytes buffer(8);
  CHECK(io::read_exactly(file, {2}, buffer, "table").has_value());
  const auto outcome = io::read_exactly(file, {4}, buffer, "table");
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().message == "table at 0x4 (8 bytes) is past the end of the file (10 bytes)");
}

TEST_CASE("read_zero_extended: fills what lies past the end with zeros") {
  const io::MemoryFile file(Bytes(4, std::byte{7}));
  Bytes buffer(6, std::byte{9});
  REQUIRE(io::read_zero_extended(file, {2}, buffer));
  CHECK(buffer == Bytes{std::byte{7}, std::byte{7}, {}, {}, {}, {}});
}

TEST_CASE("data_ranges: stays within the file and within what was asked") {
  const io::MemoryFile file(Bytes(100));
  CHECK(io::data_ranges(file, {{10}, {200}}).value() == std::vector<HostRange>{{{10}, {100}}});
  CHECK(io::data_ranges(file, {{100}, {200}}).value().empty());
}
