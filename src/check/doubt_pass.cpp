// SPDX-License-Identifier: MIT
// Looks for signs of what was lost, where clusters leak that no orphan table names: parts of L2
// tables that read as if they were wiped, and leaked clusters that may be the true content of a
// guest cluster that shares its host cluster with another one. Gathers notes. Reads the L2 tables
// again, one after the other, of such images alone.
#include "table_walk.hpp"

#include <algorithm>
#include <unordered_set>

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Finding;
using finding::Structure;
using qcow2::L2Entry;

// qcow2.rst, "Cluster mapping". Whatever is written at once, it is whole sectors.
constexpr std::uint64_t sector_bytes = 512;

// One L2 table, as the first L1 entry that names it sees it.
struct Table {
  HostOffset at;
  std::uint64_t first_guest_cluster = 0;
  std::uint64_t used_entries = 0;  // those that describe a part of the disk
  Structure structure{};
  std::vector<std::uint64_t> entries{};  // the descriptors alone, without subcluster bitmaps
  std::vector<bool> is_zero{};           // the whole entry
};

class DoubtPass {
 public:
  explicit DoubtPass(Survey& survey) : survey_(survey) {
    for (const std::uint64_t cluster : survey.orphans) {
      if (!survey.orphans_of_tables.contains(cluster))
        orphans_.push_back(cluster);
    }
    std::sort(orphans_.begin(), orphans_.end());
  }

  void look() {
    if (orphans_.empty() || survey_.result.is_partial || survey_.image.header().has_data_file())
      return;
    find_shared_clusters();
    walk_tables(survey_, {.l1_tables = survey_.l1_tables},
                [this](const Reference& reference, const std::vector<be64>& words) {
                  look_at(reference, words);
                });
    pair_the_last();
    std::stable_sort(pairs_.begin(), pairs_.end(),
                     [](const Finding& a, const Finding& b) { return a.index < b.index; });
    for (Finding& pair : pairs_)
      survey_.result.findings.add(std::move(pair));
  }

 private:
  void find_shared_clusters() {
    for (const Finding& finding : survey_.result.findings.runs()) {
      if (finding.code == Code::shared_cluster_user)
        shared_.insert(finding.found);
    }
  }

  void look_at(const Reference& reference, const std::vector<be64>& words) {
    Table table{.at = {reference.l2_table()},
                .first_guest_cluster = reference.l1_index * survey_.geometry.l2_entries(),
                .structure = reference.l2_structure()};
    const std::uint64_t disk = divide_up(reference.disk_size, survey_.geometry.cluster_size());
    table.used_entries =
        std::min(survey_.geometry.l2_entries(), disk - std::min(disk, table.first_guest_cluster));
    const std::size_t step = survey_.geometry.l2_entry_bytes() / sizeof(be64);
    for (std::size_t i = 0; i < words.size(); i += step) {
      table.entries.push_back(words[i].get());
      table.is_zero.push_back(words[i].get() == 0 && words[i + step - 1].get() == 0);
    }
    find_wiped_parts(table);
    if (!shared_.empty())
      find_true_places(table);
  }

  [[nodiscard]] bool is_orphan(std::uint64_t offset) const {
    return std::binary_search(orphans_.begin(), orphans_.end(), survey_.cluster_of(offset));
  }

  [[nodiscard]] std::uint64_t standard_offset(std::uint64_t raw) const {
    return L2Entry(raw).is_compressed() ? 0 : L2Entry(raw).host_offset().value;
  }

  // Runs of whole sectors of zeros beside entries. A guest that never wrote there leaves them, too:
  // so either as many clusters leak as the run has entries, or the cluster that the run would name
  // next, by its neighbour, is one of them.
  void find_wiped_parts(const Table& table) {
    const std::uint64_t per_sector = sector_bytes / survey_.geometry.l2_entry_bytes();
    const std::uint64_t size = survey_.geometry.cluster_size();
    for (std::uint64_t i = 0; i < table.used_entries; ++i) {
      if (!table.is_zero[i] || i % per_sector != 0 || (i != 0 && table.is_zero[i - 1]))
        continue;
      std::uint64_t end = i;
      while (end < table.used_entries && table.is_zero[end])
        ++end;
      const bool is_whole_table = i == 0 && end == table.used_entries;
      const bool ends_at_sector = end % per_sector == 0 || end == table.used_entries;
      if (is_whole_table || !ends_at_sector)
        continue;
      const std::uint64_t before = i == 0 ? 0 : standard_offset(table.entries[i - 1]);
      const std::uint64_t after =
          end == table.used_entries ? 0 : standard_offset(table.entries[end]);
      const bool has_neighbour =
          (before != 0 && is_orphan(before + size)) || (after > size && is_orphan(after - size));
      if (has_neighbour || orphans_.size() >= end - i)
        note_wiped(table, i, end);
    }
  }

  void note_wiped(const Table& table, std::uint64_t begin, std::uint64_t end) {
    const std::uint64_t entry_bytes = survey_.geometry.l2_entry_bytes();
    const std::uint64_t size = survey_.geometry.cluster_size();
    const std::uint64_t first = table.first_guest_cluster + begin;
    survey_.result.findings.add(
        {.code = Code::l2_table_part_empty,
         .structure = table.structure,
         .index = first,
         .host = {table.at + begin * entry_bytes, table.at + end * entry_bytes},
         .guest = {{first * size}, {(table.first_guest_cluster + end) * size}}});
  }

  // Guests write in runs: a shared entry that does not continue its neighbours may have named the
  // leaked cluster that would.
  void find_true_places(const Table& table) {
    std::vector<std::uint64_t> places(table.entries.size());  // 0 where nobody knows
    for (std::size_t i = 0; i < places.size(); ++i) {
      const std::uint64_t offset = standard_offset(table.entries[i]);
      if (!is_shared(offset))
        places[i] = offset;
      else if (i > 0)
        places[i] =
            resolve(table, i, places[i - 1] + survey_.geometry.cluster_size(), places[i - 1] != 0);
    }
    for (std::size_t i = places.size() - 1; i-- > 0;) {
      if (places[i] == 0 && is_shared(standard_offset(table.entries[i])))
        places[i] = resolve(table, i, places[i + 1] - survey_.geometry.cluster_size(),
                            places[i + 1] > survey_.geometry.cluster_size());
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (is_shared(standard_offset(table.entries[i])))
        users_.push_back(user(table, i));
    }
  }

  [[nodiscard]] bool is_shared(std::uint64_t offset) const {
    return offset != 0 && shared_.contains(survey_.cluster_of(offset));
  }

  // The place of entry `i` if its neighbour's place makes it `expected`; 0 if that is no sign.
  std::uint64_t resolve(const Table& table, std::size_t i, std::uint64_t expected,
                        bool has_neighbour) {
    if (!has_neighbour)
      return 0;
    if (standard_offset(table.entries[i]) == expected)
      return expected;
    if (!is_orphan(expected))
      return 0;
    pairs_.push_back(pair(user(table, i), survey_.cluster_of(expected)));
    return expected;
  }

  // A guest cluster that shares its host cluster.
  [[nodiscard]] Finding user(const Table& table, std::size_t i) const {
    const std::uint64_t guest = table.first_guest_cluster + i;
    const std::uint64_t size = survey_.geometry.cluster_size();
    return {.code = Code::orphan_content,
            .structure = table.structure,
            .index = guest,
            .guest = {{guest * size}, {(guest + 1) * size}}};
  }

  [[nodiscard]] Finding pair(Finding user, std::uint64_t orphan) const {
    user.host = survey_.range_of(orphan);
    return user;
  }

  // One shared cluster and one leaked one belong together, whoever lies beside them.
  void pair_the_last() {
    if (!pairs_.empty() || shared_.size() != 1 || orphans_.size() != 1)
      return;
    for (const Finding& user : users_)
      pairs_.push_back(pair(user, orphans_.front()));
  }

  Survey& survey_;
  std::vector<std::uint64_t> orphans_;  // sorted
  std::unordered_set<std::uint64_t> shared_;
  std::vector<Finding> users_;
  std::vector<Finding> pairs_;
};

}  // namespace

void find_doubts(Survey& survey) {
  DoubtPass(survey).look();
}

}  // namespace coldchain::check
