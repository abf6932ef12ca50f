// SPDX-License-Identifier: MIT
// L1 entries that name something else than an L2 table: guest data, the header, the refcount table,
// a refcount block, an L1 table, or the tables of snapshots and bitmaps. The content decides. If
// the cluster reads as what the other reference says, the L1 entry is wrong: it is dropped, and
// nothing in the cluster is changed. The table that it named may be an orphan; find_tables.cpp
// looks for it.
#include "mender.hpp"

#include <algorithm>
#include <bit>

#include <coldchain/base/try.hpp>
#include <coldchain/check/table_finder.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Code;
using finding::Structure;

class WrongTables {
 public:
  explicit WrongTables(Mender& mender)
      : m_(mender), finder_(*mender.image), occupancy_(mender.checked->owners) {}

  Result<bool> drop() {
    for (const check::Owner& owner : m_.checked->owners) {
      if (owner.structure != Structure::l2_table && owner.structure != Structure::snapshot_l2_table)
        continue;
      for (std::uint64_t i = 0; i < owner.count; ++i) {
        if (is_no_table(owner.first + i))
          wrong_.insert(owner.first + i);
      }
    }
    if (wrong_.empty())
      return false;
    const qcow2::Header& header = m_.header();
    TRY(drop_entries({header.l1_table_offset}, header.l1_size, Structure::l1_table));
    // An unreadable snapshot table is another step's affair.
    if (const auto snapshots = qcow2::read_snapshots(m_.view(), header)) {
      for (const qcow2::Snapshot& snapshot : *snapshots)
        TRY(drop_entries({snapshot.l1_table_offset}, snapshot.l1_size,
                         Structure::snapshot_l1_table));
    }
    return has_changed_;
  }

 private:
  [[nodiscard]] bool is_no_table(std::uint64_t cluster) {
    if (m_.is_header_or_l1(cluster))
      return true;
    const Occupants& there = occupancy_.at(cluster);
    if (there.has(Structure::refcount_table))
      return !has_bad_blocks() && agrees_as_refcounts(std::nullopt);
    if (there.has(Structure::refcount_block))
      return agrees_as_refcounts(cluster);
    if (there.has(Structure::snapshot_l1_table))
      return finder_.look_at(cluster) && finder_.names_tables();
    const bool is_used_otherwise =
        m_.references(cluster) > there.times || m_.is_other_metadata(cluster);
    // Of a table of zeros, nothing is lost with the entry.
    return is_used_otherwise && !finder_.reads_as_table(cluster);
  }

  [[nodiscard]] bool has_bad_blocks() const {
    const finding::FindingList& findings = m_.checked->findings;
    return findings.has(Code::refcount_table_entry_reserved) ||
           findings.has(Code::refcount_block_unaligned) ||
           findings.has(Code::refcount_block_past_end);
  }

  // Whether at least half of the clusters that are referred to have the right refcount in the
  // block; in all blocks, if none is given.
  [[nodiscard]] bool agrees_as_refcounts(std::optional<std::uint64_t> block) {
    std::uint64_t agreeing = 0;
    std::uint64_t used = 0;
    for (const check::Owner& owner : m_.checked->owners) {
      if (owner.structure != Structure::refcount_block ||
          owner.first != block.value_or(owner.first))
        continue;
      const std::uint64_t first = owner.index * m_.clusters_per_block();
      const std::uint64_t end = std::min(first + m_.clusters_per_block(), m_.checked->claims.end());
      for (std::uint64_t word = align_down(first, 64); word < end; word += 64) {
        for (std::uint64_t bits = m_.checked->claims.word(word).claimed; bits != 0;
             bits &= bits - 1) {
          const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
          ++used;
          agreeing +=
              m_.checked->stored.at(cluster, cursor_) == m_.checked->claims.at(cluster) ? 1 : 0;
        }
      }
    }
    return used != 0 && agreeing >= used / 2;
  }

  Result<void> drop_entries(HostOffset table, std::uint64_t entries, Structure structure) {
    const std::uint64_t coverage = m_.geometry().l2_coverage();
    const std::uint64_t bytes = std::min(
        entries * sizeof(be64), m_.view().size() - std::min(m_.view().size(), table.value));
    std::vector<be64> l1(bytes / sizeof(be64));
    TRY(io::read_table(m_.view(), table, writable_bytes_of(l1)));
    for (std::uint64_t i = 0; i < l1.size(); ++i) {
      const std::uint64_t named = l1[i].get() & qcow2::offset_mask;
      const HostOffset at = table + i * sizeof(be64);
      const std::uint64_t cluster = m_.cluster_of(at.value);
      const bool may_write = structure == Structure::l1_table
                                 ? !m_.is_other_metadata(cluster, Structure::l1_table)
                                 : m_.is_alone(cluster, structure);
      if (l1[i].get() == 0 || !wrong_.contains(m_.cluster_of(named)) || !may_write)
        continue;
      has_changed_ = true;
      m_.add({.mending = Mending::drop_l2_table,
              .structure = structure,
              .index = i,
              .host = {at, at + sizeof(be64)},
              .lost = {{i * coverage}, {(i + 1) * coverage}},
              .detail = "the entry names something else than a table"});
      if (structure == Structure::l1_table)
        m_.wrong_l1_entries.insert(i);
      // Its table may be linked: then both are one write.
      TRY(m_.set_entry(Phase::link, at, 0));
    }
    return {};
  }

  Mender& m_;
  check::TableFinder finder_;
  Occupancy occupancy_;  // also of refcount structures that seem to be wrong
  check::StoredRefcounts::Cursor cursor_;
  std::set<std::uint64_t> wrong_;  // clusters
  bool has_changed_ = false;
};

}  // namespace

Result<bool> drop_wrong_tables(Mender& mender) {
  return WrongTables(mender).drop();
}

}  // namespace coldchain::ops
