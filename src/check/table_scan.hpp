// SPDX-License-Identifier: MIT
// What one L2 table says, looked at by itself: damage, the clusters that it names, counts. Pure: it
// claims nothing, so that tables can be looked at on several threads.
#pragma once

#include "survey.hpp"

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::check {

// One L1 entry that is not zero.
struct Reference {
  std::uint64_t raw = 0;
  HostOffset entry_at;  // where the entry lies
  std::uint32_t l1_index = 0;
  std::uint32_t times = 1;  // of the first: how many references name the table
  bool is_active = false;
  std::uint64_t disk_size = 0;  // of the guest's disk that the table is part of
  bool is_first = true;         // the first that names this table
  bool is_skipped = false;      // the table is not looked into
  // Only the flags of the active mapping mean anything, and QEMU passes over a table at 0 and over
  // one whose own refcount cannot be read.
  bool has_copied_flags = false;

  [[nodiscard]] std::uint64_t l2_table() const { return raw & qcow2::offset_mask; }
  [[nodiscard]] finding::Structure l1_structure() const {
    return is_active ? finding::Structure::l1_table : finding::Structure::snapshot_l1_table;
  }
  [[nodiscard]] finding::Structure l2_structure() const {
    return is_active ? finding::Structure::l2_table : finding::Structure::snapshot_l2_table;
  }
};

struct ClusterRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  bool is_compressed = false;
  std::size_t findings_before = 0;  // of the table: qemu-img tells them before it counts these
};

struct CompressedEntry {
  std::uint64_t index = 0;  // in its table
  std::uint64_t raw = 0;
};

struct TableCounts {
  std::uint64_t corruptions = 0;  // as qemu-img counts
  std::uint64_t copied = 0;       // wrong copied flags
  std::uint64_t allocated = 0;
  std::uint64_t fragmented = 0;
  std::uint64_t compressed = 0;
  bool is_unreadable = false;
  bool is_empty = false;  // zeros, all of it

  [[nodiscard]] bool is_damaged() const { return corruptions + copied != 0 || is_unreadable; }
};

// What one L2 table says. The findings are bounded, the counts exact.
struct TableScan {
  static constexpr std::size_t most_findings = 1 << 12;
  std::vector<ClusterRun> claims;
  std::vector<CompressedEntry> compressed_entries;  // that are to be decompressed
  finding::FindingList findings{most_findings};
  finding::FindingList copied{most_findings};
  TableCounts counts;
};

// A finding about entry `index` of the table that `reference` names.
[[nodiscard]] finding::Finding entry_finding(const Survey& survey, const Reference& reference,
                                             finding::Code code, std::uint64_t index,
                                             std::uint64_t raw);

// A finding about the compressed cluster of entry `index`, whose stream the end of the file cuts.
[[nodiscard]] finding::Finding cut_stream_finding(const Survey& survey, const Reference& reference,
                                                  std::uint64_t index, std::uint64_t raw);

// Looks through `table`, which `reference` names.
void scan_table(const Survey& survey, const Reference& reference, const std::vector<be64>& table,
                TableScan& scan);

}  // namespace coldchain::check
