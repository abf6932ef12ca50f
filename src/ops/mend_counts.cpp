// SPDX-License-Identifier: MIT
// Refcounts by what was counted, at every width: up before anything else, down when nothing refers
// to the clusters any more.
#include "mender.hpp"

#include <algorithm>
#include <bit>
#include <span>

#include <coldchain/base/try.hpp>
#include <coldchain/check/table_finder.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/wire.hpp>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Structure;
using qcow2::refcount_block_mask;

// Clusters that tables to which nothing refers name, and those tables. A lost snapshot shares
// tables with the disk: what these name is its data, too.
class LostClusters {
 public:
  explicit LostClusters(Mender& mender) : m_(mender), finder_(*mender.image) {}

  void look_at(std::uint64_t cluster) {
    if (is_snapshot_table(cluster))
      lost_.add(cluster, 1);
    if (!finder_.look_at(cluster))
      return;
    lost_.add(cluster, 1);
    std::vector<std::uint64_t> shared_tables;
    finder_.for_each_named([&](std::uint64_t named) {
      lost_.add(named, 1);
      if (m_.is_l2_table(named))
        shared_tables.push_back(named);
    });
    for (const std::uint64_t table : shared_tables) {
      if (looked_at_.at(table) != 0 || !finder_.look_at(table))
        continue;
      looked_at_.add(table, 1);
      finder_.for_each_named([&](std::uint64_t named) { lost_.add(named, 1); });
    }
  }

  [[nodiscard]] bool has(std::uint64_t cluster) const { return lost_.at(cluster) != 0; }

 private:
  // Whether it begins like one whose L1 table is lost, too.
  [[nodiscard]] bool is_snapshot_table(std::uint64_t cluster) const {
    qcow2::wire::Snapshot entry{};
    const HostOffset at = m_.clusters(cluster).begin;
    if (!io::read_zero_extended(m_.view(), at, std::as_writable_bytes(std::span(&entry, 1))))
      return false;
    const std::uint64_t l1 = entry.l1_table_offset.get();
    return l1 != 0 && is_aligned(l1, m_.cluster_size()) && l1 < m_.view().size() &&
           m_.references(m_.cluster_of(l1)) == 0 && entry.l1_size.get() != 0 &&
           entry.l1_size.get() <= qcow2::limits::max_l1_bytes / sizeof(be64) &&
           entry.extra_data_size.get() <= qcow2::limits::max_snapshot_extra_data;
  }

  Mender& m_;
  check::TableFinder finder_;
  check::Claims lost_{1};
  check::Claims looked_at_{1};
};

class CountMender {
 public:
  explicit CountMender(Mender& mender) : m_(mender), lost_(mender) {}

  Result<bool> mend() {
    const auto& table = m_.checked->stored.table();
    if (m_.leaves_tables && m_.table_is_bad())
      return false;
    if (!m_.options.free_orphans && !m_.is_mapping_damaged && (has_leaks() || may_be_wiped()))
      TRY(find_lost());
    const std::uint64_t per_block = m_.clusters_per_block();
    for (std::uint64_t index = next_used(0) / per_block; index < table.size();
         index = std::max(index + 1, next_used((index + 1) * per_block) / per_block))
      TRY(mend_block(index));
    return has_changed_;
  }

 private:
  // 64 clusters from `first` on: those whose stored refcount may not be what was counted.
  [[nodiscard]] std::uint64_t differing_bits(std::uint64_t first) const {
    const check::StoredRefcounts::Word stored = m_.checked->stored.word(first);
    const check::Claims::Word claimed = m_.checked->claims.word(first);
    return (stored.one ^ claimed.claimed) | stored.more | claimed.shared;
  }

  // A word at or after `from`, which never goes down, before which all counts and claims are zero.
  std::uint64_t next_used(std::uint64_t from) {
    if (next_claimed_ < from)
      next_claimed_ = align_down(m_.checked->claims.next_used(from), 64);
    if (next_stored_ < from)
      next_stored_ = m_.checked->stored.next_counted(from);
    return std::min(next_claimed_, next_stored_);
  }

  std::vector<std::uint64_t> differing_words(std::uint64_t first, std::uint64_t end) {
    std::vector<std::uint64_t> words;
    for (std::uint64_t word = next_used(first); word < end; word = next_used(word + 64)) {
      if (differing_bits(word) != 0)
        words.push_back(word);
    }
    return words;
  }

  // Whether counts of zero may be such as were wiped.
  [[nodiscard]] bool may_be_wiped() const {
    return m_.checked->findings.has(finding::Code::refcount_too_low);
  }
  [[nodiscard]] bool has_leaks() const { return m_.checked->counts.leaks != 0; }

  // Every cluster with data to which nothing refers, whatever its refcount: a lost table may have
  // lost its own.
  Result<void> find_lost() {
    const HostOffset end{m_.data_end() * m_.cluster_size()};
    std::uint64_t cluster = 0;  // several pieces of data may lie in one cluster
    for (const HostRange& data : TRY(io::data_ranges(m_.view(), {{0}, end}))) {
      const std::uint64_t last = m_.cluster_of(data.end.value - 1);
      for (cluster = std::max(cluster, m_.cluster_of(data.begin.value)); cluster <= last;) {
        const std::uint64_t word = align_down(cluster, 64);
        const std::uint64_t claimed = m_.checked->claims.word(word).claimed;
        for (; cluster <= last && cluster < word + 64; ++cluster) {
          if ((claimed >> (cluster - word) & 1) == 0)
            lost_.look_at(cluster);
        }
      }
    }
    return {};
  }

  // Order: counts go up before anything else, and down when nothing refers to the clusters.
  Result<void> mend_block(std::uint64_t index) {
    const std::uint64_t raw = m_.checked->stored.table()[index];
    const std::uint64_t per_block = m_.clusters_per_block();
    const std::uint64_t first = index * per_block;
    if (!m_.is_sound_block(raw))
      return {};
    const std::vector<std::uint64_t> words = differing_words(first, first + per_block);
    if (words.empty())
      return {};
    const HostOffset at{raw & refcount_block_mask};
    Bytes stored(m_.cluster_size());
    TRY(io::read_exactly(m_.view(), at, stored, "refcount block"));
    Bytes raised = stored;
    Bytes lowered;
    const unsigned order = m_.header().refcount_order;
    for (int pass = 0; pass < 2; ++pass) {
      const bool is_raising = pass == 0;
      if (!is_raising)
        lowered = raised;
      for (const std::uint64_t word : words) {
        for (std::uint64_t bits = differing_bits(word); bits != 0; bits &= bits - 1) {
          const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
          const std::uint64_t was = qcow2::refcount_at(stored, order, cluster - first);
          const std::uint64_t right = m_.right_refcount(cluster);
          if (is_raising && was < right && m_.options.tier == RepairTier::all) {
            qcow2::set_refcount_at(raised, order, cluster - first, right);
            note(Mending::raise_refcount, cluster);
          } else if (!is_raising && was > right && may_lower(cluster)) {
            qcow2::set_refcount_at(lowered, order, cluster - first, right);
            note(right == 0 ? Mending::free_cluster : Mending::lower_refcount, cluster);
            if (right == 0)
              m_.freed.add(cluster, 1);
            if (right == 1)
              m_.lowered.add(cluster, 1);
          }
        }
      }
    }
    for (const std::uint64_t cluster : TRY(find_uncounted(first, stored))) {
      qcow2::set_refcount_at(raised, order, cluster - first, 1);
      qcow2::set_refcount_at(lowered, order, cluster - first, 1);
      note(Mending::raise_refcount, cluster);
      ++m_.kept_clusters;
    }
    TRY(stage(m_.phase_at(at, Phase::secure), at, stored, raised));
    // Also in a fresh block, which counts from the moment on that it is linked.
    return stage(Phase::release, at, raised, lowered);
  }

  // No sector of a refcount block is zeros if something refers to its clusters: such a one was
  // wiped. What nothing refers to any more in its range had a refcount, too; without one, the next
  // writer takes it. Clusters that may be lost data get it back.
  Result<std::vector<std::uint64_t>> find_uncounted(std::uint64_t first, ByteView block) {
    std::vector<std::uint64_t> uncounted;
    if (m_.options.free_orphans || m_.options.tier != RepairTier::all)
      return uncounted;
    constexpr std::uint64_t sector = io::OverlayFile::sector_size;
    const std::uint64_t per_sector = m_.clusters_per_block() / (block.size() / sector);
    const HostOffset end{m_.data_end() * m_.cluster_size()};
    for (std::uint64_t i = 0; i < block.size() / sector; ++i) {
      const std::uint64_t begin = first + i * per_sector;
      const HostRange covered = m_.clusters(begin, per_sector);
      if (!is_zero(block.subspan(i * sector, sector)) || covered.begin >= end ||
          !has_claim(begin, per_sector))
        continue;
      std::uint64_t cluster = begin;  // several pieces of data may lie in one cluster
      for (const HostRange& data :
           TRY(io::data_ranges(m_.view(), {covered.begin, std::min(covered.end, end)}))) {
        const std::uint64_t last = m_.cluster_of(data.end.value - 1);
        for (cluster = std::max(cluster, m_.cluster_of(data.begin.value)); cluster <= last;
             ++cluster) {
          if (m_.right_refcount(cluster) == 0 && (m_.is_mapping_damaged || lost_.has(cluster)))
            uncounted.push_back(cluster);
        }
      }
    }
    return uncounted;
  }

  [[nodiscard]] bool has_claim(std::uint64_t first, std::uint64_t count) const {
    for (std::uint64_t word = first; word < first + count; word += 64) {
      if (m_.checked->claims.word(word).claimed != 0)
        return true;
    }
    return false;
  }

  // Where not every reference could be counted, no count is too high for certain.
  bool may_lower(std::uint64_t cluster) {
    // Behind the end of the file there is no data; but the flag of a reference that leads there
    // says what the count does, and stays where leaks alone are mended.
    if (cluster >= m_.checked->file_clusters && m_.options.tier == RepairTier::leaks &&
        m_.checked->findings.has(finding::Code::reference_past_end))
      return false;
    const bool may_be_lost = m_.is_mapping_damaged || lost_.has(cluster);
    const bool is_kept = m_.checked->failure || (cluster < m_.checked->file_clusters &&
                                                 !m_.options.free_orphans && may_be_lost);
    if (is_kept)
      ++m_.kept_clusters;
    return !is_kept;
  }

  void note(Mending mending, std::uint64_t cluster) {
    m_.add({.mending = mending,
            .structure = Structure::host_cluster,
            .index = cluster,
            .host = m_.clusters(cluster)});
  }

  Result<void> stage(Phase phase, HostOffset at, const Bytes& from, const Bytes& to) {
    constexpr std::uint64_t sector = io::OverlayFile::sector_size;
    for (std::uint64_t i = 0; i < to.size(); i += sector) {
      const ByteView part = ByteView(to).subspan(i, sector);
      if (std::equal(part.begin(), part.end(), from.begin() + static_cast<std::ptrdiff_t>(i)))
        continue;
      has_changed_ = true;
      TRY(m_.transaction.stage(phase, at + i, part));
    }
    return {};
  }

  Mender& m_;
  LostClusters lost_;
  std::uint64_t next_claimed_ = 0;
  std::uint64_t next_stored_ = 0;
  bool has_changed_ = false;
};

}  // namespace

Result<bool> mend_refcounts(Mender& mender) {
  return CountMender(mender).mend();
}

}  // namespace coldchain::ops
