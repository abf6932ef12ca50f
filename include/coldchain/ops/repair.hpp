// SPDX-License-Identifier: MIT
// Plans the repair of a qcow2 image on a transaction; nothing is written here. The result is
// checked on the transaction's view, so the caller that commits it knows the result.
// Clusters that may hold lost data are not freed. Without `free_orphans`, these clusters keep their
// refcount: clusters that an unreferenced table names, and all unreferenced clusters of an image
// whose mapping is damaged or was damaged before a former repair.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/check/check.hpp>
#include <coldchain/edit/transaction.hpp>
#include <coldchain/finding/finding.hpp>

namespace coldchain::ops {

enum class RepairTier {
  leaks,  // frees clusters that no table can reach
  all,    // also rebuilds redundant data, and drops references that cannot be right
};

// A lost L2 table, and the L1 entry that the user gives for it.
struct TableLink {
  HostOffset table;
  std::uint64_t l1_index = 0;
};

struct RepairOptions {
  RepairTier tier = RepairTier::all;
  bool free_orphans = false;
  bool rebuild_mapping = false;
  std::vector<TableLink> links{};  // with rebuild_mapping
  // A former repair dropped damaged references: unreferenced clusters may be what they named.
  bool keep_unreferenced = false;
  unsigned workers = 1;
  Progress progress{};  // as that of a check: a repair checks the image twice, or more often
};

enum class Mending : std::uint8_t {
  raise_refcount,
  lower_refcount,
  free_cluster,
  new_refcount_table,
  new_refcount_block,
  drop_refcount_block,  // the reference to it
  set_copied_flag,
  clear_copied_flag,
  clear_reserved_bits,
  clear_subcluster_bits,
  read_as_zeros,  // an L2 entry: its guest range is lost
  drop_l2_table,  // an L1 entry: its guest range is lost
  link_l2_table,  // a lost L2 table is found
  write_snapshot_table,
  mark_bitmap_dirty,
  give_up_bitmaps,
  remove_extension,
  clear_header_field,
  clear_feature_bit,
};
[[nodiscard]] std::string_view to_string(Mending mending);

// One change, or a run of `count` equal changes to neighbours.
struct Action {
  Mending mending{};
  finding::Structure structure{};
  std::uint64_t index = 0;
  std::uint64_t count = 1;
  HostRange host{};      // the changed bytes, or the clusters whose refcount changes
  GuestRange lost{};     // guest range that is lost for good; empty: nothing
  std::string detail{};  // evidence; may be empty
};

// What a check has found.
struct Condition {
  check::Counts counts;
  finding::FindingList findings;
  std::optional<std::string> failure;
};

[[nodiscard]] Result<Condition> condition_of(const io::File& image);
// Whether qemu-img rebuilds the refcounts of such an image as a whole.
[[nodiscard]] bool needs_rebuild(const Condition& condition, RepairTier tier);
// A change must not increase these: corruptions, and errors of the check.
[[nodiscard]] std::uint64_t corruption_count(const Condition& condition);

// What is wrong once the refcounts are repaired and the copied flags are not: qemu-img names and
// counts its repairs in this order, and the flags by the repaired refcounts.
struct AfterRefcounts {
  static constexpr std::size_t most_flags = 1 << 14;  // runs that are kept

  std::uint64_t corruptions = 0;  // but for flags
  std::uint64_t flags = 0;
  finding::Findings wrong_flags;
  // Clusters from the first up to the second whose refcounts are still wrong, in order.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> wrong_refcounts;
};

struct Repair {
  Condition before;
  Condition after;
  // qemu-img's numbers for the same repairs.
  std::uint64_t corruptions_fixed = 0;
  std::uint64_t leaks_fixed = 0;
  AfterRefcounts after_refcounts;
  std::vector<Action> actions;        // in the order in which they were found
  std::uint64_t omitted_actions = 0;  // not kept: there are too many
  // Unreferenced clusters that keep their refcount.
  std::uint64_t kept_clusters = 0;
  // Tables that may be lost parts of the mapping, but were not linked.
  std::vector<std::string> proposals;
  // The reason why tables were not rebuilt.
  std::optional<std::string> obstacle{};
};

// `transaction` is empty and gets the changes. `data_file` may be null. Errors: `refused` if the
// check is partial, if the result would be worse, or if there is no room (with the size needed).
[[nodiscard]] Result<Repair> plan_repair(edit::Transaction& transaction, const io::File* data_file,
                                         const RepairOptions& options);

}  // namespace coldchain::ops
