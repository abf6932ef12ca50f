// SPDX-License-Identifier: MIT
// Gives guest clusters of a sound qcow2 image a place of their own, on a transaction, or takes it
// away: free host clusters, the lowest first, refcounts, refcount blocks and table, L1 and L2
// tables, copied flags. What the clusters hold is written elsewhere, before anything refers to them
// (edit/fresh_data.hpp). Phases: new tables are fresh; counts go up in `secure`, where what is
// counted is not referred to yet; `extend` refers to tables, `link` to all else; what nothing
// refers to any more is released. qcow2.rst, "Host cluster management", "Cluster mapping".
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <coldchain/check/check.hpp>
#include <coldchain/edit/transaction.hpp>
#include <coldchain/ops/plan.hpp>
#include <coldchain/qcow2/image.hpp>
#include <coldchain/qcow2/snapshots.hpp>
#include <coldchain/qcow2/tables.hpp>

namespace coldchain::ops {

// Whoever writes to an image clears the autoclear bits that it does not know.
[[nodiscard]] Result<void> clear_unknown_autoclear(edit::Transaction& transaction,
                                                   const qcow2::Header& header);

class ImageEditor {
 public:
  // `transaction` is of the image's file and still empty; `checked` has found nothing wrong with
  // the image but leaks. All of them outlive the editor.
  ImageEditor(edit::Transaction& transaction, const qcow2::Image& image,
              const check::CheckResult& checked);

  // In the first three, `range` is whole clusters, or subclusters where the image has them, but for
  // the end of the guest's disk. What was there is replaced; whole clusters, where it is
  // compressed, or shared and data follows. Ranges come in ascending order.
  [[nodiscard]] Result<void> allocate(GuestRange range);
  [[nodiscard]] Result<void> set_zero(GuestRange range);
  // Zeros that have a place. Not in version 2.
  [[nodiscard]] Result<void> reserve(GuestRange range);
  // Any sectors whose place is the image's alone, and stays.
  [[nodiscard]] Result<void> overwrite(GuestRange range);

  // A whole cluster gets a place for its bytes, compressed as `stream` has them elsewhere, in less
  // than a cluster; the rest of their sectors comes along, so that nobody must unpack it to know
  // where it ends.
  [[nodiscard]] Result<void> place_compressed(GuestOffset cluster, qcow2::CompressedExtent stream);

  // From here on all that is about what an internal snapshot refers to, and ranges begin anew.
  [[nodiscard]] Result<void> turn_to(const qcow2::Snapshot& snapshot);

  // Makes room in the L1 table for a disk of that size, and the disk as large, last of all.
  [[nodiscard]] Result<void> grow_disk(std::uint64_t size);

  // A cluster for something else, or some in a row, which are to be counted; they hold anything.
  [[nodiscard]] Result<HostOffset> add_cluster();
  [[nodiscard]] Result<HostOffset> add_clusters(std::uint64_t count);
  // Such as nothing refers to any more.
  void remove_clusters(HostOffset first, std::uint64_t count);

  // Takes away all that the active L1 table refers to, and refcount blocks that count no more than
  // themselves afterwards. Instead of all the others.
  [[nodiscard]] Result<void> empty();

  // Stages what is still open: L1 entries, the last L2 table, and all refcounts.
  [[nodiscard]] Result<void> finish();

  [[nodiscard]] const AddedClusters& added() const { return added_; }
  // Behind the last cluster that counts as used, once all is staged.
  [[nodiscard]] Result<HostOffset> end_of_image() const;
  // Where data goes: sorted, disjoint.
  [[nodiscard]] std::vector<HostRange> sorted_data() const;

 private:
  // An L2 table that is being changed.
  struct Table {
    std::uint64_t l1_index = 0;
    HostOffset at;
    bool is_fresh = false;
    bool is_new = false;  // instead of none
    Bytes before;         // as it is in the image; empty where it is fresh
    Bytes bytes;  // empty where the table is only counted, and nobody has looked into it yet
  };

  [[nodiscard]] Result<std::uint64_t> take_cluster();
  // At most so many clusters that follow each other, and at least one.
  [[nodiscard]] Result<HostRange> take_clusters(std::uint64_t most);
  Result<void> take(std::uint64_t first, std::uint64_t count);
  [[nodiscard]] std::uint64_t next_free(std::uint64_t from) const;
  // `end` where all are free up to there.
  [[nodiscard]] std::uint64_t next_used(std::uint64_t from, std::uint64_t end) const;
  // Less than a cluster, of such as only compressed clusters refer to.
  [[nodiscard]] Result<HostOffset> take_sectors(std::uint64_t bytes);
  Result<void> extend_sectors();
  // Makes `cluster` the block of that index, if it has none.
  bool add_block(std::uint64_t index, std::uint64_t cluster);

  Result<void> open_table(GuestOffset offset);
  Result<void> close_table();
  // A fresh cluster that is only counted.
  Result<void> stage_counted(HostOffset at);
  Result<void> stage_changes(edit::Phase phase, HostOffset at, ByteView before, ByteView after);
  [[nodiscard]] std::uint64_t entry(std::uint64_t index, unsigned word);
  void set_entry(std::uint64_t index, unsigned word, std::uint64_t value);
  // Calls `action` for the part of each cluster, with its table open.
  template <class Action>
  Result<void> for_each_cluster(GuestRange range, const Action& action);
  Result<void> place(GuestRange range, bool as_zeros);
  Result<void> place_in_cluster(GuestRange part, bool as_zeros);
  // Whole clusters of a table that has nothing there.
  Result<void> place_whole_clusters(GuestRange range, bool as_zeros);
  [[nodiscard]] GuestOffset end_of_table(GuestOffset offset) const;
  void set_zero_in_cluster(GuestRange part);
  Result<HostOffset> own_cluster(std::uint64_t index);
  Result<void> add_data(GuestRange part, std::uint64_t size);
  Result<void> append_data(HostRange range);
  // What an L2 entry refers to.
  void release_entry(qcow2::L2Entry entry);
  [[nodiscard]] std::uint32_t subclusters_of(GuestRange part) const;

  Result<void> stage_l1_entries();
  Result<void> place_l1_table(std::uint64_t entries);
  // So many clusters in a row behind all others, with the refcount blocks that these need.
  Result<std::uint64_t> take_row(std::uint64_t count);
  Result<void> drop_empty_blocks();
  Result<void> place_table();
  static Result<void> check_table_size(std::uint64_t bytes);
  void release(std::uint64_t first, std::uint64_t count);
  // What a cluster's refcount becomes.
  using CountChange = std::function<std::uint64_t(std::uint64_t cluster, std::uint64_t count)>;
  Result<void> change_counts(edit::Phase phase, const std::vector<HostRange>& ranges,
                             const CountChange& change);
  Result<void> count_taken();
  Result<void> count_released();
  Result<void> stage_copied_flags();
  Result<void> stage_table_entries();
  Result<void> stage_table();
  [[nodiscard]] bool is_table_fresh() const {
    return table_at_.value != image_.header().refcount_table_offset;
  }

  [[nodiscard]] std::uint64_t cluster_size() const { return geometry_.cluster_size(); }
  [[nodiscard]] std::uint64_t clusters_per_block() const {
    return checked_.stored.clusters_per_block();
  }
  [[nodiscard]] HostOffset host_of(std::uint64_t cluster) const {
    return {cluster << geometry_.cluster_bits()};
  }

  edit::Transaction& transaction_;
  const qcow2::Image& image_;
  const check::CheckResult& checked_;
  qcow2::Geometry geometry_;
  std::optional<Table> table_;
  HostOffset l1_at_;
  std::uint64_t l1_size_ = 0;                          // entries
  bool is_snapshot_ = false;                           // copied flags of its tables say nothing
  HostOffset last_own_;                                // the cluster that an entry got last
  std::map<std::uint64_t, std::uint64_t> l1_entries_;  // that change, by index
  std::uint64_t cursor_ = 1;                           // no cluster below it is free
  std::vector<std::uint64_t> refcount_table_;
  std::uint64_t entries_before_ = 0;      // of the refcount table
  HostOffset table_at_;                   // the refcount table
  std::set<std::uint64_t> fresh_blocks_;  // by their index in it
  HostRange unused_sectors_;  // behind the last compressed cluster, in clusters that were taken
  std::map<std::uint64_t, std::uint64_t> compressed_counts_;  // refcounts of such clusters
  std::vector<HostRange> taken_;        // all clusters that are added, merged, in order
  std::vector<HostRange> released_;     // clusters that lose one reference for each time
  std::vector<HostRange> left_to_one_;  // clusters of those that one reference is left to
  std::vector<HostRange> data_;
  std::uint64_t most_ranges_;  // of those
  Bytes blank_;                // a cluster, once one is only counted
  AddedClusters added_;
};

}  // namespace coldchain::ops
