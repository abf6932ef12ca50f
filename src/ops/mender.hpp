// SPDX-License-Identifier: MIT
// What the steps of a repair share: the transaction, the image as it is so far, the last check of
// it, and the list of actions. A step stages changes and returns whether there were any; then the
// image is checked again, so that each step sees what the former ones have left.
#pragma once

#include "occupancy.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include <coldchain/base/checked.hpp>
#include <coldchain/ops/repair.hpp>
#include <coldchain/qcow2/image.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>

namespace coldchain::ops {

class Mender {
 public:
  Mender(edit::Transaction& repair_transaction, const io::File* external_data_file,
         const RepairOptions& repair_options)
      : transaction(repair_transaction), data_file(external_data_file), options(repair_options) {}
  Mender(const Mender&) = delete;
  Mender& operator=(const Mender&) = delete;

  edit::Transaction& transaction;
  const io::File* data_file;
  const RepairOptions& options;
  std::optional<qcow2::Image> image;
  std::optional<check::CheckResult> checked;
  std::optional<check::CheckResult> at_first;  // before anything was mended, once something was
  AfterRefcounts after_refcounts;
  std::vector<Action> actions;
  std::uint64_t omitted_actions = 0;
  bool is_mapping_damaged = false;  // before the first step, or when refcounts are mended
  std::uint64_t kept_clusters = 0;
  std::vector<std::string> proposals;
  std::optional<std::string> obstacle;     // why nothing could be appended
  std::set<std::uint64_t> dropped_blocks;  // refcount blocks that could not be right
  bool has_left_tables = false;            // refcount tables could not be appended
  bool leaves_tables = false;              // so these are left as they are, and nothing is appended
  // Entries of the active L1 table that named something else than a table, and were dropped.
  std::set<std::uint64_t> wrong_l1_entries;
  check::Claims lowered{1};  // clusters that keep one reference
  check::Claims freed{1};    // clusters that are told to be free

  [[nodiscard]] Result<void> check_again();

  [[nodiscard]] const io::File& view() const { return transaction.view(); }
  [[nodiscard]] const qcow2::Header& header() const { return image->header(); }
  [[nodiscard]] qcow2::Geometry geometry() const { return qcow2::Geometry(header()); }
  [[nodiscard]] std::uint64_t cluster_size() const { return header().cluster_size(); }
  [[nodiscard]] std::uint64_t cluster_of(std::uint64_t offset) const {
    return offset >> header().cluster_bits;
  }
  [[nodiscard]] HostRange clusters(std::uint64_t first, std::uint64_t count = 1) const {
    return {{first << header().cluster_bits}, {(first + count) << header().cluster_bits}};
  }
  // But for those of structures that own nothing. May be more than a refcount can hold.
  [[nodiscard]] std::uint64_t references(std::uint64_t cluster) const {
    return checked->claims.at(cluster) + checked->overflows.at(cluster) - bogus_.at(cluster);
  }
  // What the refcount of a cluster should be; as much as it can hold, where there are more
  // references.
  [[nodiscard]] std::uint64_t right_refcount(std::uint64_t cluster) const {
    return std::min(references(cluster), qcow2::max_refcount(header().refcount_order));
  }
  [[nodiscard]] std::uint64_t clusters_per_block() const {
    return checked->stored.clusters_per_block();
  }

  // Behind the clusters that may hold data: the end of a file; of a device, of which nobody knows
  // the holes, the end of what is referred to or was ever counted.
  [[nodiscard]] std::uint64_t data_end() const;
  // By a refcount block that cannot be read any more.
  void was_counted(std::uint64_t end) { counted_end_ = std::max(counted_end_, end); }

  // Whether a refcount table entry names a block that can be written to.
  [[nodiscard]] bool is_sound_block(std::uint64_t raw) const;

  // Whether a structure other than L2 tables, and than `beside`, lies in the cluster.
  [[nodiscard]] bool is_other_metadata(
      std::uint64_t cluster, finding::Structure beside = finding::Structure::l2_table) const;
  [[nodiscard]] bool is_l2_table(std::uint64_t cluster) const;
  // Where these lie, the header says itself.
  [[nodiscard]] bool is_header_or_l1(std::uint64_t cluster) const;
  // Whether an entry lies in the file, whole.
  [[nodiscard]] bool has_entry(HostOffset at) const {
    return at.value <= view().size() && view().size() - at.value >= sizeof(be64);
  }
  // Whether that structure lies in the cluster, and nothing else: only then it may be written to.
  [[nodiscard]] bool is_alone(std::uint64_t cluster, finding::Structure structure) const;
  // Whether one structure lies in the cluster, and nothing else.
  [[nodiscard]] bool is_of_one(std::uint64_t cluster) const;

  // The same for copied flags, which mean the same in every L1 and L2 table that lies there.
  [[nodiscard]] bool is_of_mappings(std::uint64_t cluster) const;

  // Where what was appended begins; behind everything, if nothing was.
  [[nodiscard]] HostOffset fresh_from() const { return {fresh_from_}; }
  // Clusters that were not in the file before are written in another phase.
  [[nodiscard]] edit::Phase phase_at(HostOffset offset, edit::Phase otherwise) const {
    return offset.value >= fresh_from_ ? edit::Phase::fresh : otherwise;
  }
  [[nodiscard]] Result<std::uint64_t> entry_at(HostOffset offset) const;
  [[nodiscard]] Result<void> set_entry(edit::Phase phase, HostOffset offset, std::uint64_t entry) {
    return transaction.stage_entry(phase_at(offset, phase), offset, entry);
  }
  // Whether append_clusters(count) may be called now; a later round may find that it can.
  [[nodiscard]] bool can_append(std::uint64_t count);
  // Whether the refcount table cannot be right.
  [[nodiscard]] bool table_is_bad() const { return table_is_bad_; }
  [[nodiscard]] bool table_was_bad() const { return table_was_bad_; }
  // Whether a file may honestly need so many clusters more.
  [[nodiscard]] Result<void> check_growth(std::uint64_t count) const;
  // Clusters at the end of the file; on a block device behind all that is in use.
  [[nodiscard]] Result<HostOffset> append_clusters(std::uint64_t count);
  // The cluster that append_clusters() would return first.
  [[nodiscard]] std::uint64_t next_fresh_cluster() const;

  void add(Action action);

 private:
  [[nodiscard]] Progress progress_of_check(unsigned number) const;
  [[nodiscard]] Result<std::uint64_t> find_room(std::uint64_t first, std::uint64_t count) const;
  // Whether nothing but the structures there refers to the cluster.
  [[nodiscard]] bool holds_metadata_alone(std::uint64_t cluster) const;

  void find_occupancy();
  [[nodiscard]] bool find_whether_table_is_bad() const;

  unsigned checks_ = 0;
  // As of the last check.
  Occupancy occupancy_;
  check::Claims bogus_{1};  // of structures that own nothing
  bool table_is_bad_ = false;
  // As of all checks.
  bool table_was_bad_ = false;
  std::uint64_t counted_end_ = 0;
  std::uint64_t fresh_from_ = ~std::uint64_t{0};
  std::uint64_t next_fresh_ = 0;
  std::uint64_t appended_bytes_ = 0;
};

// The steps, in the order in which they are repeated until nothing is left to do.
[[nodiscard]] Result<bool> drop_bad_blocks(Mender& mender);
[[nodiscard]] Result<bool> drop_wrong_tables(Mender& mender);
[[nodiscard]] Result<bool> mend_entries(Mender& mender);
[[nodiscard]] Result<bool> mend_header_tables(Mender& mender);
[[nodiscard]] Result<bool> mend_refcount_tables(Mender& mender);
[[nodiscard]] Result<bool> find_lost_tables(Mender& mender);
// Then, each once or as long as it helps:
[[nodiscard]] Result<bool> mend_refcounts(Mender& mender);
[[nodiscard]] Result<bool> mend_copied_flags(Mender& mender);
[[nodiscard]] Result<bool> mend_header_bits(Mender& mender);

// The entries that the findings of one run name, one after the other, read some at a time. They are
// as the transaction has them, as long as nothing but the entries behind is changed meanwhile.
class EntryRun {
 public:
  // `first` is the first of them, and the next is `step` bytes further on.
  EntryRun(const Mender& mender, HostOffset first, std::uint64_t step, std::uint64_t count)
      : mender_(mender), next_(first), step_(step), left_(count) {}

  [[nodiscard]] Result<std::uint64_t> take();

 private:
  const Mender& mender_;
  HostOffset next_;
  std::uint64_t step_;
  std::uint64_t left_;
  Bytes batch_;
  std::size_t at_ = 0;  // where the next one lies in the batch
};

}  // namespace coldchain::ops
