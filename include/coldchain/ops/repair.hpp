// SPDX-License-Identifier: MIT
// What a repair of a qcow2 image changes, worked out on a transaction: nothing is written here. The
// result is checked on the transaction's view; whoever commits it knows what it will be.
// Nothing is freed that might be lost data: without `free_orphans`, clusters keep their refcount
// that a table to which nothing refers names, or to which nothing refers in an image whose mapping
// is damaged, or was before a former repair.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/check/check.hpp>
#include <coldchain/edit/transaction.hpp>
#include <coldchain/finding/finding.hpp>

namespace coldchain::ops {

enum class RepairTier {
  leaks,  // frees what no table can reach
  all,    // and rebuilds what is redundant; in the end drops references that cannot be right
};

// A lost L2 table, and the L1 entry that a person says it belongs to.
struct TableLink {
  HostOffset table;
  std::uint64_t l1_index = 0;
};

struct RepairOptions {
  RepairTier tier = RepairTier::all;
  bool free_orphans = false;
  bool rebuild_mapping = false;
  std::vector<TableLink> links{};  // with rebuild_mapping
  // A former repair dropped damaged references: what nothing refers to may be what they named.
  bool keep_unreferenced = false;
  unsigned workers = 1;
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

// One thing that is changed, or a run of `count` neighbours alike.
struct Action {
  Mending mending{};
  finding::Structure structure{};
  std::uint64_t index = 0;
  std::uint64_t count = 1;
  HostRange host{};      // what is changed, or the clusters whose refcount is
  GuestRange lost{};     // what the guest can no longer read for good; empty: nothing
  std::string detail{};  // evidence; may be empty
};

// What a check has found.
struct Condition {
  check::Counts counts;
  finding::FindingList findings;
  std::optional<std::string> failure;
};

[[nodiscard]] Result<Condition> condition_of(const io::File& image);
// What a change must not leave more of: corruptions and what could not be checked.
[[nodiscard]] std::uint64_t corruption_count(const Condition& condition);

struct Repair {
  Condition before;
  Condition after;
  std::vector<Action> actions;        // in the order in which they were found
  std::uint64_t omitted_actions = 0;  // not kept: there are too many
  // Clusters to which nothing refers and that keep their refcount.
  std::uint64_t kept_clusters = 0;
  // Tables that may be lost parts of the mapping, but nobody can tell which.
  std::vector<std::string> proposals;
  // What stands in the way of tables that had to be written anew.
  std::optional<std::string> obstacle{};
};

// `transaction` is empty and gets the changes. `data_file` may be null. Errors: `refused` where the
// check is partial, where the result would be worse, or where there is no room (with what is
// needed).
[[nodiscard]] Result<Repair> plan_repair(edit::Transaction& transaction, const io::File* data_file,
                                         const RepairOptions& options);

}  // namespace coldchain::ops
