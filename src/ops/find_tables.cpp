// SPDX-License-Identifier: MIT
// Lost L2 tables: clusters that are counted but to which nothing refers, and that look like one. An
// L2 table does not say which part of the disk it describes, and neither does its place in the
// file. So one is linked only where there is one, it names clusters, each counted and used by
// nobody else, and one L1 entry is without a table, or named something else than a table; or where
// a person says which belongs where. The rest is told with what speaks for it. A guest's own data
// may look like a table: then there are two, and nobody is believed. The clusters of a data file
// are not counted: there, nobody is certain.
#include "mender.hpp"

#include <algorithm>
#include <map>

#include <coldchain/base/try.hpp>
#include <coldchain/check/table_finder.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Code;
using finding::Finding;
using finding::Structure;

// A table to which nothing refers.
struct Candidate {
  HostOffset at;
  std::uint64_t named = 0;      // clusters that it names
  std::uint64_t named_too = 0;  // of these, such as something else refers to
  bool is_certain = false;      // names nothing but data clusters of which each is counted
  bool is_l1 = false;           // names tables: of an internal snapshot
};

class TableSearch {
 public:
  explicit TableSearch(Mender& mender) : m_(mender) {}

  Result<bool> search() {
    find_candidates();
    TRY(find_slots());
    m_.proposals.clear();
    if (TRY(link_as_told()))
      return true;
    if (candidates_.size() == 1 && candidates_.front().is_certain &&
        m_.wrong_l1_entries.size() == 1 && is_slot(*m_.wrong_l1_entries.begin())) {
      const std::uint64_t slot = *m_.wrong_l1_entries.begin();
      TRY(link(candidates_.front(), slot,
               "the only lost table and the only entry that named something else"));
      nothing_is_lost(slot);
      return true;
    }
    if (!m_.options.rebuild_mapping) {
      propose();
      return false;
    }
    // Over a backing file, an entry without a table is the rule: it is no evidence. Of entries that
    // share a table, one may belong to the lost table.
    if (candidates_.size() == 1 && slots_.size() == 1 && sharing_.empty() &&
        candidates_.front().is_certain && !m_.header().backing_file()) {
      TRY(link(candidates_.front(), slots_.front(),
               "the only lost table and the only entry without one"));
      return true;
    }
    propose();
    return false;
  }

 private:
  void find_candidates() {
    check::TableFinder finder(*m_.image);
    for (const Finding& finding : m_.checked->findings.runs()) {
      const bool is_table =
          finding.code == Code::orphan_table || finding.code == Code::lost_snapshot;
      for (std::uint64_t i = 0; is_table && i < finding.count; ++i) {
        if (!finder.look_at(finding.index + i))
          continue;
        Candidate candidate{.at = m_.clusters(finding.index + i).begin, .is_certain = true};
        std::vector<std::uint64_t> named;
        check::Claims seen(1);
        finder.for_each_named([&](std::uint64_t cluster) {
          ++candidate.named;
          candidate.named_too += m_.references(cluster) != 0 ? 1 : 0;
          // Only compressed data share a cluster, and are counted as often.
          const bool is_shared = !seen.add(cluster, 1).empty();
          candidate.is_certain = candidate.is_certain && is_counted(cluster, is_shared ? 2 : 1);
          if (named.size() < most_named)
            named.push_back(cluster);
        });
        // Of a snapshot that was being deleted, the L1 table names L2 tables.
        candidate.is_l1 = finder.names_tables();
        candidate.is_certain = candidate.is_certain && candidate.named != 0 &&
                               candidate.named_too == 0 && !candidate.is_l1 &&
                               std::none_of(named.begin(), named.end(), [&](std::uint64_t cluster) {
                                 return finder.look_at(cluster);
                               });
        candidates_.push_back(candidate);
      }
    }
  }

  bool is_counted(std::uint64_t cluster, std::uint64_t times) {
    return m_.checked->stored.at(cluster, cursor_).value_or(0) >= times;
  }

  [[nodiscard]] bool is_slot(std::uint64_t l1_index) const {
    return std::binary_search(slots_.begin(), slots_.end(), l1_index);
  }

  // At most one of the entries that name one table is right: a person may say which is not.
  [[nodiscard]] bool is_sharing(std::uint64_t l1_index) const {
    return std::binary_search(sharing_.begin(), sharing_.end(), l1_index);
  }

  // What the entry described is found again.
  void nothing_is_lost(std::uint64_t slot) {
    for (Action& action : m_.actions) {
      if (action.mending == Mending::drop_l2_table && action.structure == Structure::l1_table &&
          action.index == slot && action.count == 1)
        action.lost = {};
    }
  }

  // L1 entries that are empty and describe a part of the disk.
  Result<void> find_slots() {
    const qcow2::Header& header = m_.header();
    const std::uint64_t needed = std::min<std::uint64_t>(
        divide_up(header.size, m_.geometry().l2_coverage()), header.l1_size);
    std::vector<be64> l1(needed);
    TRY(io::read_zero_extended(m_.view(), {header.l1_table_offset}, writable_bytes_of(l1)));
    std::map<std::uint64_t, std::uint64_t> users;
    for (const be64& entry : l1)
      ++users[entry.get() & qcow2::offset_mask];
    for (std::uint64_t i = 0; i < needed; ++i) {
      if (l1[i].get() == 0)
        slots_.push_back(i);
      else if (users[l1[i].get() & qcow2::offset_mask] > 1)
        sharing_.push_back(i);
    }
    return {};
  }

  Result<bool> link_as_told() {
    bool has_linked = false;
    for (const TableLink& told : m_.options.links) {
      const auto candidate =
          std::find_if(candidates_.begin(), candidates_.end(),
                       [&](const Candidate& other) { return other.at == told.table; });
      if (candidate == candidates_.end() || candidate->is_l1 ||
          !(is_slot(told.l1_index) || is_sharing(told.l1_index)))
        continue;  // linked by now; what never could be is told at the end
      TRY(link(*candidate, told.l1_index, "as --link says"));
      has_linked = true;
    }
    return has_linked;
  }

  Result<void> link(const Candidate& candidate, std::uint64_t slot, std::string_view why) {
    const HostOffset at{m_.header().l1_table_offset + slot * sizeof(be64)};
    m_.add({.mending = Mending::link_l2_table,
            .structure = Structure::l1_table,
            .index = slot,
            .host = {at, at + sizeof(be64)},
            .detail = fmt::format("{}; {}", describe(candidate), why)});
    // The copied flag follows with the refcounts.
    return m_.set_entry(Phase::link, at, candidate.at.value);
  }

  [[nodiscard]] static std::string describe(const Candidate& candidate) {
    return fmt::format("the table at {:#x} names {} clusters, {} of them in use elsewhere",
                       candidate.at.value, candidate.named, candidate.named_too);
  }

  void propose() {
    constexpr std::size_t most_proposals = 1000;
    for (const Candidate& candidate : candidates_) {
      if (m_.proposals.size() == most_proposals)
        break;
      if (candidate.is_l1) {
        m_.proposals.push_back(fmt::format(
            "the table at {:#x} is an L1 table, which names {} tables: it belongs to an internal "
            "snapshot that is not in the snapshot table, and is never linked. If the snapshot was "
            "being deleted, '--free-orphans' ends that",
            candidate.at.value, candidate.named));
        continue;
      }
      m_.proposals.push_back(fmt::format(
          "{}; {} lost tables, {} L1 entries without one{}{}. '{}--link {:#x}=INDEX' links it",
          describe(candidate), candidates_.size(), slots_.size(), in_brackets(slots_),
          wrong_entries(), m_.options.rebuild_mapping ? "" : "--rebuild-mapping ",
          candidate.at.value));
    }
  }

  [[nodiscard]] std::string wrong_entries() const {
    std::string text;
    if (!m_.wrong_l1_entries.empty())
      text += fmt::format(", {} that named something else{}", m_.wrong_l1_entries.size(),
                          in_brackets(m_.wrong_l1_entries));
    if (!sharing_.empty())
      text += fmt::format(", {} that share a table{}", sharing_.size(), in_brackets(sharing_));
    return text;
  }

  template <class Indexes>
  [[nodiscard]] static std::string in_brackets(const Indexes& indexes) {
    constexpr std::size_t most_indexes = 16;
    if (indexes.empty() || indexes.size() > most_indexes)
      return "";
    return fmt::format(" ({})", fmt::join(indexes, ", "));
  }

  // An L1 table shows itself by the first tables that it names.
  static constexpr std::size_t most_named = 1024;

  Mender& m_;
  check::StoredRefcounts::Cursor cursor_;
  std::vector<Candidate> candidates_;
  std::vector<std::uint64_t> slots_;
  std::vector<std::uint64_t> sharing_;  // L1 entries that name the same table as another one
};

}  // namespace

Result<bool> find_lost_tables(Mender& mender) {
  if (!mender.options.rebuild_mapping && mender.wrong_l1_entries.empty())
    return false;
  return TableSearch(mender).search();
}

}  // namespace coldchain::ops
