// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <random>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/refcounts.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

TEST_CASE("refcount_at: gives back what was set, at every width") {
  std::mt19937_64 random(1);
  for (unsigned order = 0; order <= 6; ++order) {
    Bytes block(512);
    const std::size_t entries = 512 * 8 >> order;
    const std::uint64_t mask = order == 6 ? ~0ULL : (1ULL << (1U << order)) - 1;
    std::vector<std::uint64_t> values(entries);
    for (std::size_t i = 0; i < entries; ++i) {
      values[i] = random() & mask;
      set_refcount_at(block, order, i, values[i]);
    }
    for (std::size_t i = 0; i < entries; ++i)
      CHECK(refcount_at(block, order, i) == values[i]);
  }
}

TEST_CASE("refcount_at: sub-byte entries start at the least significant bit") {
  const Bytes block = {std::byte{0b0000'0110}};
  CHECK(refcount_at(block, 0, 0) == 0);
  CHECK(refcount_at(block, 0, 1) == 1);
  CHECK(refcount_at(block, 1, 0) == 2);
  CHECK(refcount_at(block, 2, 0) == 6);
}

TEST_CASE("Refcounts: counts used clusters up to enough and finds the image end, at every width") {
  for (std::uint32_t order = 0; order <= 6; ++order) {
    testing::ImageOptions options;
    options.refcount_order = order;
    options.cluster_bits = 9;
    options.size = 1 << 16;
    testing::ImageBuilder builder(options);
    builder.data(0, 1).data(5, 2);
    const auto bytes = builder.build();
    const io::MemoryFile file(bytes.flat());
    const Header header = read_header(file).value();
    const Refcounts refcounts = Refcounts::open(file, header).value();
    CHECK(refcounts.image_end().value().value == bytes.size);
    CHECK(refcounts.count_used(bytes.size / 512, ~0ULL).value() == bytes.size / 512);
    CHECK(refcounts.count_used(bytes.size / 512, 3).value() == 3);
    CHECK(refcounts.count_used(2, ~0ULL).value() == 2);
  }
}

TEST_CASE("Refcounts: a table that names one block very many times is refused") {
  const testing::ImageBuilder builder{testing::ImageOptions{}};
  const auto bytes = builder.build();
  Bytes flat = bytes.flat();
  const Header header = decode_header(flat).value();
  const auto table = flat.begin() + static_cast<std::ptrdiff_t>(header.refcount_table_offset);
  const auto named = [&](std::size_t count) {
    for (std::size_t i = 1; i < count; ++i)
      std::copy_n(table, 8, table + static_cast<std::ptrdiff_t>(8 * i));
    const io::MemoryFile file(flat);
    return Refcounts::open(file, header).has_value();
  };
  CHECK(named(16));
  CHECK_FALSE(named(17));
}

TEST_CASE("Refcounts: a table outside the file, unaligned or too large is an error") {
  const testing::ImageBuilder builder{testing::ImageOptions{}};
  const io::MemoryFile file(builder.build().flat());
  Header header = read_header(file).value();
  const std::uint64_t good = header.refcount_table_offset;
  header.refcount_table_offset = good + 512;
  CHECK_FALSE(Refcounts::open(file, header));
  header.refcount_table_offset = 1ULL << 40;
  CHECK_FALSE(Refcounts::open(file, header));
  header.refcount_table_offset = good;
  header.refcount_table_clusters = (8 << 20) / 65536 + 1;
  CHECK_FALSE(Refcounts::open(file, header));
}
