// SPDX-License-Identifier: MIT
#include <coldchain/edit/transaction.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using edit::Change;
using edit::Phase;
using edit::Transaction;

namespace {

Bytes filled(std::size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

std::vector<Change> changes_of(const Transaction& transaction) {
  std::vector<Change> changes;
  REQUIRE(transaction
              .for_each_change([&](const Change& change) -> Result<void> {
                changes.push_back(change);
                return {};
              })
              .has_value());
  return changes;
}

Bytes read(const io::File& file, std::uint64_t offset, std::size_t size) {
  Bytes bytes(size);
  REQUIRE(io::read_zero_extended(file, {offset}, bytes).has_value());
  return bytes;
}

}  // namespace

TEST_CASE("Transaction: what is staged is read back, and the file keeps its bytes") {
  const io::MemoryFile file(filled(4096, 1));
  Transaction transaction(file);
  CHECK(transaction.is_empty());
  REQUIRE(transaction.stage(Phase::secure, {510}, filled(4, 9)).has_value());
  CHECK(read(transaction.view(), 508, 8) == Bytes{std::byte{1}, std::byte{1}, std::byte{9},
                                                  std::byte{9}, std::byte{9}, std::byte{9},
                                                  std::byte{1}, std::byte{1}});
  CHECK(file.content() == filled(4096, 1));
  CHECK(transaction.changed_bytes() == 1024);
}

TEST_CASE("Transaction: changes come in the order of their phases, however they were staged") {
  const io::MemoryFile file(filled(4096, 1));
  Transaction transaction(file);
  REQUIRE(transaction.stage(Phase::settle, {8}, filled(8, 4)).has_value());
  REQUIRE(transaction.stage(Phase::secure, {0}, filled(8, 2)).has_value());
  REQUIRE(transaction.stage(Phase::release, {4}, filled(8, 3)).has_value());
  const std::vector<Change> changes = changes_of(transaction);
  REQUIRE(changes.size() == 3);
  CHECK(changes[0].phase == Phase::secure);
  CHECK(changes[1].phase == Phase::release);
  CHECK(changes[2].phase == Phase::settle);
  // Each begins where the one before ended, and the last is what the view shows.
  CHECK(changes[0].before == filled(512, 1));
  CHECK(changes[1].before == changes[0].after);
  CHECK(changes[2].before == changes[1].after);
  CHECK(changes[2].after == read(transaction.view(), 0, 512));
}

TEST_CASE("Transaction: what does not change anything is no change") {
  const io::MemoryFile file(filled(4096, 1));
  Transaction transaction(file);
  REQUIRE(transaction.stage(Phase::secure, {100}, filled(8, 1)).has_value());
  CHECK(changes_of(transaction).empty());
}

TEST_CASE("Transaction: fresh clusters that are counted come to what they come to when kept") {
  const io::MemoryFile file(filled(4096, 'o'));
  Transaction kept(file);
  Transaction counted(file, edit::Fresh::counted);
  for (Transaction* transaction : {&kept, &counted}) {
    transaction->grow(16ULL << 20);
    // Behind each other in any order, and one for itself.
    for (const std::uint64_t mib : {2ULL, 1ULL, 3ULL, 9ULL})
      REQUIRE(transaction->stage_fresh({mib << 20}, filled(1 << 20, 'f')).has_value());
    REQUIRE(transaction->stage_fresh({4ULL << 20}, filled(512, 'f')).has_value());
    REQUIRE(transaction->stage(Phase::link, {0}, filled(8, 'l')).has_value());
    // A sector that is fresh, too, is no further one.
    REQUIRE(transaction->stage(Phase::settle, {9ULL << 20}, filled(8, 's')).has_value());
  }
  CHECK(counted.changed_bytes() == kept.changed_bytes());
  const auto figures = counted.count_changes().value();
  const auto expected = kept.count_changes().value();
  CHECK(figures.changes == expected.changes);
  CHECK(figures.bytes == expected.bytes);
  CHECK(expected.changes == changes_of(kept).size());
  CHECK_FALSE(counted.is_empty());
  counted.discard();
  CHECK(counted.is_empty());
  CHECK(counted.changed_bytes() == 0);
}

TEST_CASE("Transaction: no more is staged than the file has storage for, and a little") {
  const io::MemoryFile file(filled(4096, 'o'));
  Transaction transaction(file);
  CHECK(transaction.limit() == Transaction::least_limit + 4096);
  transaction.grow(1ULL << 40);
  const Bytes cluster = filled(1 << 20, 'f');
  std::uint64_t staged = 0;
  Result<void> done;
  for (; done && staged < 1ULL << 30; staged += done ? cluster.size() : 0)
    done = transaction.stage_fresh({4096 + staged}, cluster);
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().code == ErrorCode::too_large);
  CHECK(staged == Transaction::least_limit);
  transaction.discard();
  transaction.grow(1ULL << 40);
  transaction.raise_limit(io::MemoryFile(filled(1 << 20, 'x')));
  CHECK(transaction.limit() == Transaction::least_limit + 4096 + (1 << 20));
  CHECK(transaction.stage_fresh({4096}, cluster).has_value());
}

TEST_CASE("Transaction: neighbours become one change of at most a MiB") {
  const io::MemoryFile file(filled(3 << 20, 1));
  Transaction transaction(file);
  REQUIRE(transaction.stage(Phase::secure, {0}, filled(3 << 20, 2)).has_value());
  const std::vector<Change> changes = changes_of(transaction);
  REQUIRE(changes.size() == 3);
  for (const Change& change : changes)
    CHECK(change.after.size() == Transaction::most_change_bytes);
}

TEST_CASE("Transaction: the file grows only where it is told to, and reads as zeros there") {
  const io::MemoryFile file(filled(1000, 1));
  Transaction transaction(file);
  CHECK_FALSE(transaction.stage(Phase::fresh, {998}, filled(4, 2)).has_value());
  transaction.grow(4096);
  REQUIRE(transaction.stage(Phase::fresh, {2048}, filled(4, 2)).has_value());
  CHECK(transaction.size_before() == 1000);
  CHECK(transaction.size_after() == 4096);
  CHECK(read(transaction.view(), 1000, 24) == filled(24, 0));
  CHECK(transaction.view().next_data({1024})->value == 2048);
  CHECK(transaction.view().next_hole({2048})->value == 2560);
}

TEST_CASE("Transaction: fresh clusters are part of the change also where they hold the same") {
  const io::MemoryFile file(filled(1024, 0));
  Transaction transaction(file);
  transaction.grow(2048);
  REQUIRE(transaction.stage(Phase::fresh, {0}, filled(1024, 0)).has_value());
  CHECK(transaction.is_empty());
  REQUIRE(transaction.stage_fresh({512}, filled(1536, 0)).has_value());
  const std::vector<Change> changes = changes_of(transaction);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].offset.value == 512);
  CHECK(changes[0].before == filled(1536, 0));
  CHECK(changes[0].after == filled(1536, 0));
  CHECK_FALSE(transaction.stage_fresh({2048}, filled(512, 0)).has_value());
}
