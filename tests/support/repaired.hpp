// SPDX-License-Identifier: MIT
// An image in memory, repaired without a side file.
#pragma once

#include <coldchain/edit/transaction.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/ops/repair.hpp>

#include <doctest/doctest.h>

namespace coldchain::testing {

inline Bytes content(const io::File& file) {
  Bytes bytes(file.size());
  REQUIRE(io::read_exactly(file, {0}, bytes, "file").has_value());
  return bytes;
}

struct Repaired {
  Bytes bytes;
  ops::Repair repair;
};

inline Repaired repaired(const Bytes& image, const ops::RepairOptions& options) {
  const io::MemoryFile file(image);
  edit::Transaction transaction(file);
  Result<ops::Repair> repair = ops::plan_repair(transaction, nullptr, options);
  REQUIRE_MESSAGE(repair.has_value(), repair.error().message);
  return {content(transaction.view()), std::move(*repair)};
}

inline Repaired repaired(const Bytes& image) {
  return repaired(image, {.tier = ops::RepairTier::all, .free_orphans = true});
}

inline std::uint64_t count(const ops::Repair& repair, ops::Mending mending) {
  std::uint64_t count = 0;
  for (const ops::Action& action : repair.actions)
    count += action.mending == mending ? action.count : 0;
  return count;
}

inline bool is_clean(const ops::Condition& condition) {
  return condition.findings.worst() < finding::Severity::leak && !condition.failure;
}

}  // namespace coldchain::testing
