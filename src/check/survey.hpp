// SPDX-License-Identifier: MIT
// What the passes of one check share: the image, what has been counted so far, and the one way to
// claim clusters. Passes run one after the other on one thread; only reading and decoding is spread
// over workers, so that the result does not depend on their number.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>

#include <coldchain/base/checked.hpp>
#include <coldchain/check/check.hpp>
#include <coldchain/check/stored_refcounts.hpp>
#include <coldchain/qcow2/geometry.hpp>

namespace coldchain::check {

// The parts of a file that tables of one kind lie in.
class WalkedRanges {
 public:
  // Adds a range. Returns how much of all that was added had been added before.
  std::uint64_t add(HostRange range);

 private:
  std::map<HostOffset, HostOffset> ends_;  // by where they begin; disjoint
  std::uint64_t repeated_ = 0;
};

class Survey {
 public:
  Survey(const qcow2::Image& checked_image, StoredRefcounts stored_refcounts,
         const CheckOptions& check_options);
  Survey(const Survey&) = delete;
  Survey& operator=(const Survey&) = delete;

  const qcow2::Image& image;
  const io::File& file;
  const CheckOptions& options;
  const qcow2::Geometry geometry;
  const std::uint64_t file_size;  // bytes, in whole sectors
  CheckResult result;
  const StoredRefcounts& stored = result.stored;
  finding::FindingList copied;  // findings of the copied flags, which come last
  std::uint64_t copied_count = 0;
  // An L1 table that has been walked.
  struct L1Table {
    std::uint64_t offset = 0;
    std::uint32_t entries = 0;
    bool is_active = false;
    std::uint64_t index = 0;  // of a snapshot
    std::uint64_t disk_size = 0;
  };
  std::vector<L1Table> l1_tables;
  // Leaked clusters to which nothing refers, as far as they are looked at.
  std::vector<std::uint64_t> orphans;
  // Of these, tables, and the clusters that the tables name.
  std::unordered_set<std::uint64_t> orphans_of_tables;

  [[nodiscard]] std::uint64_t cluster_of(std::uint64_t offset) const {
    return offset >> geometry.cluster_bits();
  }
  [[nodiscard]] HostRange range_of(std::uint64_t cluster, std::uint64_t count = 1) const {
    return {{cluster << geometry.cluster_bits()}, {(cluster + count) << geometry.cluster_bits()}};
  }

  // Of the file that has the standard clusters; without end where a data file is not open.
  [[nodiscard]] std::uint64_t data_size() const {
    return image.data_file() != nullptr ? image.data_file()->size() : ~0ULL;
  }

  // Whether an L2 table names nothing, because it lies in a hole.
  [[nodiscard]] bool is_in_hole(HostOffset table) const {
    return io::is_hole(file, {table, table + geometry.cluster_size()});
  }

  // QEMU allows a region to reach past the end of the file by less than a cluster.
  [[nodiscard]] bool reaches_past_end(std::uint64_t offset, std::uint64_t size) const {
    const auto end = checked_add(offset, size);
    return !end || *end >= file_size + geometry.cluster_size();
  }

  // Sound tables do not lie over each other. Damaged ones may, but not for more bytes than this.
  [[nodiscard]] std::uint64_t most_repeated_bytes() const;

  // Visits the entries of a table that are not zero, piece by piece and around holes. `walked` is
  // of all tables of this kind, `tables`; what is repeated beyond most_repeated_bytes() is left
  // out.
  // A part that cannot be read is handed to `lose`.
  [[nodiscard]] Result<void> for_each_entry(
      HostOffset table, std::uint64_t bytes, WalkedRanges& walked, std::string_view tables,
      const std::function<void(const io::Unread& unread)>& lose,
      const std::function<void(std::uint64_t raw, std::uint64_t index)>& visit);

  // Notes what the system could not read of a table.
  void note_unread(const io::Unread& unread, finding::Structure structure, std::uint64_t index);

  // Notes, once, that something was left out, and that the result is partial.
  void note_not_walked(std::string detail);

  // qemu-img check would stop here without a verdict; ours goes on and remembers why.
  void fail_as_qemu(std::string reason) {
    if (!result.failure)
      result.failure = std::move(reason);
  }

  // Notes a finding that counts as a corruption for qemu-img as well.
  void corruption(finding::Finding finding);

  // A finding of a reference that reaches past the end; `at` is where the reference stands.
  [[nodiscard]] finding::Finding past_end(finding::Structure structure, std::uint64_t index,
                                          HostRange at, std::uint64_t offset,
                                          std::uint64_t size) const;

  // Claims the clusters of a structure, `times` over; past the end of the file it is a finding.
  // Returns whether they lie in the file, and all structures together have no more clusters than
  // an image can have. `at` is where the reference stands, if it is one entry.
  bool claim(std::uint64_t offset, std::uint64_t size, finding::Structure structure,
             std::uint64_t index, std::uint64_t times = 1, HostRange at = {});

  // Claims whole clusters and notes those with more references than a refcount can hold.
  void claim_clusters(std::uint64_t first, std::uint64_t count, finding::Structure structure,
                      std::uint64_t index, std::uint64_t times);

 private:
  [[nodiscard]] std::uint64_t find_most_structure_clusters() const;

  std::uint64_t most_structure_clusters_;
  std::uint64_t structure_clusters_ = 0;
  std::set<std::string> not_walked_;
};

// The passes, in the order in which they run. Each says in its file what it tests and what it
// gathers.
void check_header(Survey& survey);
[[nodiscard]] std::vector<qcow2::Snapshot> check_snapshot_table(Survey& survey);
void check_mappings(Survey& survey, const std::vector<qcow2::Snapshot>& snapshots);
void check_encryption_header(Survey& survey);
void check_bitmaps(Survey& survey);
void check_refcount_blocks(Survey& survey);
void compare_refcounts(Survey& survey);
void check_owners(Survey& survey, bool has_snapshots);
void name_shared_users(Survey& survey, bool has_snapshots);
void find_orphan_tables(Survey& survey);
void find_doubts(Survey& survey);
void check_bounds(Survey& survey);

}  // namespace coldchain::check
