// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "sparse_file.hpp"

#include <random>

#include <coldchain/check/stored_refcounts.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using check::StoredRefcounts;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Patient;

TEST_CASE("StoredRefcounts: answers as the blocks say, at every width") {
  for (std::uint32_t order = 0; order <= 6; ++order) {
    ImageOptions options;
    options.refcount_order = order;
    options.cluster_bits = 9;
    Patient patient(ImageBuilder(options).data(0, 'a').data(1, 'b').build().flat());
    std::mt19937_64 random(order);
    const std::uint64_t most = ~0ULL >> (64 - (1U << order));
    const std::uint64_t clusters = (8ULL << 9) >> order;
    for (std::uint64_t cluster = 0; cluster < clusters; ++cluster)
      patient.set_refcount(cluster, random() % 3 == 0 ? random() & most : random() % 2);
    const io::MemoryFile file(patient.bytes());
    StoredRefcounts::Cursor cursor;
    const auto stored = StoredRefcounts::read(file, patient.header(), 2).value();
    CAPTURE(order);
    for (std::uint64_t cluster = 0; cluster < clusters; ++cluster) {
      CHECK(stored.at(cluster, cursor) == patient.refcount(cluster));
      CHECK(stored.is_one(cluster) == (patient.refcount(cluster) == 1));
    }
    for (std::uint64_t first = 0; first < clusters; first += 7) {
      for (const bool is_copied : {false, true}) {
        std::uint64_t expected = 0;
        while (expected < 100 &&
               (patient.refcount((first + expected) % clusters) == 1) == is_copied &&
               first + expected < clusters)
          ++expected;
        CHECK(std::min(clusters - first, stored.agreeing_from(first, 100, is_copied)) ==
              std::min(clusters - first, expected));
      }
    }
  }
}

TEST_CASE("StoredRefcounts: a block that cannot be there is unreadable, a missing one is zero") {
  Patient patient(ImageBuilder(ImageOptions{}).data(0, 'a').build().flat());
  patient.set(patient.refcount_table_entry(1), 0x10200);
  patient.set(patient.refcount_table_entry(3), ~0xffffULL);
  const io::MemoryFile file(patient.bytes());
  StoredRefcounts::Cursor cursor;
  const auto stored = StoredRefcounts::read(file, patient.header(), 1).value();
  CHECK(stored.at(0, cursor) == 1);
  CHECK_FALSE(stored.at(32768, cursor).has_value());
  CHECK_FALSE(stored.is_one(32768).has_value());
  CHECK(stored.at(2 * 32768, cursor) == 0);
  CHECK_FALSE(stored.at(3 * 32768, cursor).has_value());
  CHECK(stored.at(1ULL << 50, cursor) == 0);
  CHECK(stored.end() == 4 * 32768);
}

TEST_CASE("StoredRefcounts: a large block that is nearly empty is not read whole") {
  ImageOptions options;
  options.cluster_bits = 21;
  options.refcount_order = 0;
  const Patient patient(ImageBuilder(options).data(0, 'a').build().flat());
  const testing::SparseFile file(patient.bytes());
  StoredRefcounts::Cursor cursor;
  const auto stored = StoredRefcounts::read(file, patient.header(), 1).value();
  CHECK(file.bytes_read() < 3 << 20);  // the table, and a piece of the block
  CHECK(stored.at(0, cursor) == 1);
  CHECK(stored.counted() == 6);
  CHECK(stored.end() == 6);
}

TEST_CASE("StoredRefcounts: a block that is named again and again is unreadable in the end") {
  ImageOptions options;
  options.refcount_order = 0;  // 524,288 counts in a block
  Patient patient(ImageBuilder(options).data(0, 'a').build().flat());
  for (std::uint64_t i = 1; i < 20; ++i)
    patient.set(patient.refcount_table_entry(i), patient.at(patient.refcount_table_entry()));
  const io::MemoryFile file(patient.bytes());
  StoredRefcounts::Cursor cursor;
  const auto stored = StoredRefcounts::read(file, patient.header(), 1).value();
  CHECK(stored.is_partial());
  CHECK(stored.at(8 * 524288, cursor) == 1);
  CHECK_FALSE(stored.at(9 * 524288, cursor).has_value());
  CHECK(stored.end() == 20 * 524288);
}

TEST_CASE("StoredRefcounts: next_counted() finds each group of 64 that has a count, no other") {
  for (const std::uint32_t order : {0U, 3U, 6U}) {
    ImageOptions options;
    options.cluster_bits = 18;
    options.refcount_order = order;
    Patient patient(ImageBuilder(options).data(0, 'a').build().flat());
    const std::uint64_t block = (8ULL << 18) >> order;
    // The third entry names no block, and the fourth cannot have one.
    patient.set(patient.refcount_table_entry(1), patient.at(patient.refcount_table_entry()));
    patient.set(patient.refcount_table_entry(3), ~0xffffULL);
    for (const std::uint64_t cluster : {block / 2 + 70, block - 1})
      patient.set_refcount(cluster, 1);
    std::vector<std::uint64_t> groups;
    for (const std::uint64_t begin : {std::uint64_t{0}, block})
      for (const std::uint64_t group : {std::uint64_t{0}, block / 2 + 64, block - 64})
        groups.push_back(begin + group);
    const io::MemoryFile file(patient.bytes());
    const auto stored = StoredRefcounts::read(file, patient.header(), 1).value();
    CAPTURE(order);
    std::vector<std::uint64_t> found;
    for (std::uint64_t at = stored.next_counted(0); at < stored.end();
         at = stored.next_counted(at + 64))
      found.push_back(at);
    CHECK(found == groups);
    CHECK(stored.next_counted(2 * block) == ~0ULL);
    CHECK(stored.end() == 4 * block);
    std::uint64_t counted = 0;
    for (std::uint64_t cluster = 0; cluster < block; ++cluster)
      counted += patient.refcount(cluster) != 0 ? 1 : 0;
    CHECK(stored.counted() == counted);
  }
}
