// SPDX-License-Identifier: MIT
#include "sparse_file.hpp"
#include "unreadable_file.hpp"

#include <coldchain/io/file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::SparseFile;

TEST_CASE("read_table: reads a large table around the holes of the file") {
  Bytes content(3 << 20);
  content[1 << 20] = std::byte{1};
  content[(1 << 20) + (600 << 10)] = std::byte{2};
  const SparseFile file(content, 8 << 20);
  Bytes table(4 << 20, std::byte{9});
  REQUIRE(io::read_table(file, {0}, table));
  content.resize(table.size());
  CHECK(table == content);
  CHECK(file.bytes_read() <= 600 << 10);
  CHECK(io::is_hole(file, {{0}, {1 << 20}}));
  CHECK_FALSE(io::is_hole(file, {{0}, {(1 << 20) + 1}}));
  CHECK_FALSE(io::is_hole(file, {{7 << 20}, {9 << 20}}));  // past the end
}

TEST_CASE("read_table_parts: what the system cannot read is zeros, and its range is told") {
  const Bytes content(64 << 10, std::byte{7});
  const testing::UnreadableFile file(content, {{{10000}, {10001}}, {{50000}, {60000}}});
  Bytes table(48 << 10, std::byte{9});
  const io::Unread unread = io::read_table_parts(file, {8192}, table);
  REQUIRE(unread.error);
  CHECK(unread.ranges == std::vector<HostRange>{{{8192}, {12288}}, {{49152}, {8192 + (48 << 10)}}});
  CHECK(table[0] == std::byte{0});
  CHECK(table[4096] == std::byte{7});
  CHECK_FALSE(io::read_table_parts(file, {12288}, ByteSpan(table).first(8192)).error);
}

TEST_CASE("read_table: what lies past the end reads as zeros, and read_exactly refuses it") {
  const SparseFile file(Bytes(1 << 20, std::byte{7}));
  Bytes table(2 << 20, std::byte{9});
  REQUIRE(io::read_table(file, {0}, table));
  CHECK(table[(1 << 20) - 1] == std::byte{7});
  CHECK(table[1 << 20] == std::byte{0});
  CHECK_FALSE(io::read_exactly(file, {0}, table, "the table"));
}
