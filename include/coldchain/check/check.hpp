// SPDX-License-Identifier: MIT
// Finds the errors of a qcow2 image: everything that qemu-img check counts, in its order and with
// its numbers, and more. Read-only; nothing is repaired here. A check never stops early: a bad
// table affects only the data that it describes. Memory is bounded by the clusters that the tables
// name (claims.hpp), and time by the size of the tables; each table is read once, even if many
// entries name it. Holes of tables are not read. The cost of overlapping tables is bounded, too
// (survey.hpp); tables beyond the bound are skipped, with a finding.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/base/result.hpp>
#include <coldchain/check/claims.hpp>
#include <coldchain/check/stored_refcounts.hpp>
#include <coldchain/finding/finding.hpp>
#include <coldchain/qcow2/image.hpp>

namespace coldchain::check {

struct CheckOptions {
  bool deep = false;  // decompress every compressed cluster
  unsigned workers = 1;
  std::size_t most_findings = std::size_t{1} << 18;  // runs that are kept; the others are counted
  // Gets the bytes of L2 tables that were looked at. What it returns does not stop the check.
  Progress progress{};
};

// qemu-img's numbers. QEMU block/qcow2-refcount.c: what is a corruption, and how often it counts.
struct Counts {
  std::uint64_t check_errors = 0;
  std::uint64_t corruptions = 0;
  std::uint64_t leaks = 0;
  std::uint64_t total_clusters = 0;  // of the guest's disk
  std::uint64_t allocated_clusters = 0;
  std::uint64_t fragmented_clusters = 0;
  std::uint64_t compressed_clusters = 0;
  std::uint64_t image_end_offset = 0;
};

// Clusters that a structure other than guest data occupies.
struct Owner {
  std::uint64_t first = 0;  // host cluster
  std::uint64_t count = 0;
  std::uint64_t times = 1;  // how many references there are to it
  finding::Structure structure{};
  std::uint64_t index =
      0;  // which of several: the L1 index of an L2 table, the number of a snapshot
};

struct CheckResult {
  Counts counts;
  finding::FindingList findings;
  // The reason why qemu-img check would have stopped without a verdict; this check continued.
  std::optional<std::string> failure;
  // Some tables were not read: the findings are not a basis for a repair.
  bool is_partial = false;

  std::vector<Owner> owners;            // by their first cluster
  Claims claims;                        // of metadata and guest data together
  Claims overflows{~std::uint64_t{0}};  // those that did not fit
  Claims compressed{1};                 // whether a cluster holds compressed data
  StoredRefcounts stored;               // reads the image's file
  std::uint64_t file_clusters = 0;

  CheckResult(StoredRefcounts stored_refcounts, std::uint64_t max_refcount,
              std::size_t most_findings)
      : findings(most_findings), claims(max_refcount), stored(std::move(stored_refcounts)) {}
};

// `image` has been opened by Image::open_damaged. Fails if the header shows that no table can be
// read: unknown incompatible features.
[[nodiscard]] Result<CheckResult> check(const qcow2::Image& image, const CheckOptions& options);

}  // namespace coldchain::check
