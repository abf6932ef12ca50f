// SPDX-License-Identifier: MIT
// Refcounts by what was counted, at every width; and the blocks and the table that hold them, where
// they cannot be right. A block or table is never mended in place: a fresh one takes its place, and
// the reference to it is one write. In a fresh block every cluster of the file that has data counts
// as used once, so that what nothing refers to is a leak like any other and is freed by the same
// rules.
#include "mender.hpp"

#include <algorithm>
#include <bit>
#include <set>
#include <span>

#include <coldchain/base/try.hpp>
#include <coldchain/check/table_finder.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Structure;
using qcow2::refcount_block_mask;

// What the refcount of a cluster should be; as much as it can hold, where there are more
// references.
std::uint64_t right_refcount(const Mender& mender, std::uint64_t cluster) {
  return std::min(mender.references(cluster), qcow2::max_refcount(mender.header().refcount_order));
}

// The blocks and the table.
class TableMender {
 public:
  explicit TableMender(Mender& mender) : m_(mender), table_(mender.checked->stored.table()) {
    // The entries that are not used were left out.
    table_.resize(mender.header().refcount_table_clusters * mender.cluster_size() / sizeof(be64));
  }

  // References that cannot be right go; nothing takes their place yet.
  Result<bool> drop_bad() {
    bool has_changed = false;
    for (std::uint64_t i = 0; !m_.table_is_bad() && i < table_.size(); ++i) {
      if (table_[i] == 0 || m_.is_sound_block(table_[i]))
        continue;
      m_.dropped_blocks.insert(i);
      m_.was_counted((i + 1) * m_.clusters_per_block());
      has_changed = true;
      m_.add({.mending = Mending::drop_refcount_block,
              .structure = Structure::refcount_table,
              .index = i,
              .host = {entry_at(i), entry_at(i) + sizeof(be64)}});
      TRY(m_.set_entry(Phase::extend, entry_at(i), 0));
    }
    return has_changed;
  }

  Result<bool> mend() {
    const bool is_table_bad = m_.table_is_bad();
    m_.has_left_tables = false;
    // Nothing that it says can be believed.
    if (is_table_bad)
      std::fill(table_.begin(), table_.end(), 0);
    TRY(find_missing_blocks());
    if (!is_table_bad && missing_.empty())
      return false;
    // Of a file, the holes tell what is nobody's.
    if (is_table_bad && m_.view().status().kind == io::FileKind::block_device &&
        !m_.options.free_orphans) {
      m_.obstacle =
          "without its refcount table nobody knows which clusters of the device may hold lost "
          "data: "
          "repair a copy in a file, or give --free-orphans";
      m_.has_left_tables = true;
      return false;
    }
    const bool needs_table =
        is_table_bad || (!missing_.empty() && *missing_.rbegin() >= table_.size());
    if (!m_.can_append(missing_.size() + (needs_table ? table_clusters() : 0))) {
      m_.has_left_tables = true;
      return false;
    }
    if (needs_table)
      TRY(new_table());
    for (const std::uint64_t index : missing_)
      TRY(new_block(index));
    return true;
  }

 private:
  [[nodiscard]] HostOffset entry_at(std::uint64_t index) const {
    return table_at_ + index * sizeof(be64);
  }

  // Each cluster that is referred to needs a block, and so do the clusters of new blocks.
  Result<void> find_missing_blocks() {
    const check::Claims& claims = m_.checked->claims;
    const std::uint64_t per_block = m_.clusters_per_block();
    for (std::uint64_t cluster = claims.next_used(0); cluster < claims.end();) {
      const std::uint64_t index = cluster / per_block;
      if (has_claim(index))
        need(index);
      cluster = claims.next_used((index + 1) * per_block);
    }
    // Where a block is lost, unreferenced data is to keep its count until it is judged.
    for (const std::uint64_t index : m_.dropped_blocks) {
      if (m_.checked->file_clusters > index * per_block)
        need(index);
    }
    return m_.table_was_bad() ? need_all_with_data() : Result<void>{};
  }

  // Where the table is lost, so may be any block.
  Result<void> need_all_with_data() {
    const HostOffset end{m_.data_end() * m_.cluster_size()};
    for (const HostRange& data : TRY(io::data_ranges(m_.view(), {{0}, end}))) {
      const std::uint64_t last = m_.cluster_of(data.end.value - 1) / m_.clusters_per_block();
      for (std::uint64_t i = m_.cluster_of(data.begin.value) / m_.clusters_per_block(); i <= last;
           ++i)
        need(i);
    }
    return {};
  }

  // next_used() may be early.
  [[nodiscard]] bool has_claim(std::uint64_t index) const {
    const std::uint64_t per_block = m_.clusters_per_block();
    for (std::uint64_t at = index * per_block; at < (index + 1) * per_block; at += 64) {
      if (m_.checked->claims.word(at).claimed != 0)
        return true;
    }
    return false;
  }

  void need(std::uint64_t index) {
    if (index >= table_.size() || (table_[index] & refcount_block_mask) == 0)
      missing_.insert(index);
  }

  // Room for all that is there, and for the table and the new blocks themselves.
  [[nodiscard]] std::uint64_t table_clusters() const {
    const std::uint64_t first = m_.next_fresh_cluster();
    std::uint64_t clusters = 1;
    const auto needed_clusters = [&] {
      const std::uint64_t end = first + clusters + missing_.size() + 2;
      const std::uint64_t last_block = missing_.empty() ? 0 : *missing_.rbegin();
      const std::uint64_t entries = std::max<std::uint64_t>(
          {divide_up(end, m_.clusters_per_block()) + 1, table_.size(), last_block + 1});
      return divide_up(entries * sizeof(be64), m_.cluster_size());
    };
    while (clusters < needed_clusters())
      clusters *= 2;
    return clusters;
  }

  Result<void> new_table() {
    const std::uint64_t old_clusters = m_.header().refcount_table_clusters;
    const std::uint64_t clusters = table_clusters();
    const std::uint64_t bytes = clusters * m_.cluster_size();
    if (bytes > qcow2::limits::max_refcount_table_bytes)
      return fail(ErrorCode::refused,
                  fmt::format("a refcount table for {} clusters is too large: cut the file to what "
                              "is used",
                              m_.next_fresh_cluster()));
    const HostOffset at = TRY(m_.append_clusters(clusters));
    Bytes content;
    content.reserve(bytes);
    table_.resize(bytes / sizeof(be64), 0);
    for (const std::uint64_t raw : table_)
      append(content, be64(raw));
    TRY(m_.transaction.stage(Phase::fresh, at, content));
    Bytes fields;
    append(fields, be64(at.value));
    append(fields, be32(static_cast<std::uint32_t>(clusters)));
    const HostOffset field{offsetof(qcow2::wire::Header, refcount_table_offset)};
    TRY(m_.transaction.stage(Phase::extend, field, fields));
    m_.add({.mending = Mending::new_refcount_table,
            .structure = Structure::refcount_table,
            .host = {at, at + bytes},
            .detail = fmt::format("{} clusters instead of {}", clusters, old_clusters)});
    table_at_ = at;
    return {};
  }

  Result<void> new_block(std::uint64_t index) {
    if (index >= table_.size())
      return fail(ErrorCode::refused,
                  fmt::format("refcount block {} is beyond the refcount table", index));
    const std::uint64_t per_block = m_.clusters_per_block();
    const std::uint64_t first = index * per_block;
    const HostOffset at = TRY(m_.append_clusters(1));
    Bytes block(m_.cluster_size());
    const auto count_once = [&](std::uint64_t begin, std::uint64_t end) {
      for (std::uint64_t cluster = std::max(begin, first);
           cluster < std::min(end, first + per_block); ++cluster)
        qcow2::set_refcount_at(block, m_.header().refcount_order, cluster - first, 1);
    };
    const HostRange covered = m_.clusters(first, per_block);
    const HostOffset end{m_.data_end() * m_.cluster_size()};
    for (const HostRange& data :
         TRY(io::data_ranges(m_.view(), {covered.begin, std::min(covered.end, end)})))
      count_once(m_.cluster_of(data.begin.value), divide_up(data.end.value, m_.cluster_size()));
    for (std::uint64_t cluster = first; cluster < first + per_block; ++cluster) {
      if (const std::uint64_t refcount = right_refcount(m_, cluster); refcount != 0)
        qcow2::set_refcount_at(block, m_.header().refcount_order, cluster - first, refcount);
    }
    TRY(m_.transaction.stage(Phase::fresh, at, block));
    TRY(m_.set_entry(Phase::extend, entry_at(index), at.value));
    m_.add({.mending = Mending::new_refcount_block,
            .structure = Structure::refcount_block,
            .index = index,
            .host = {at, at + m_.cluster_size()}});
    return {};
  }

  Mender& m_;
  std::vector<std::uint64_t> table_;
  HostOffset table_at_{m_.header().refcount_table_offset};
  std::set<std::uint64_t> missing_;
};

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
    if (!m_.options.free_orphans && !m_.is_mapping_damaged && has_leaks())
      TRY(find_lost());
    for (std::uint64_t index = 0; index < table.size(); ++index)
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

  [[nodiscard]] bool has_leaks() const { return m_.checked->counts.leaks != 0; }

  // Every cluster with data to which nothing refers, whatever its refcount: a lost table may have
  // lost its own.
  Result<void> find_lost() {
    const HostOffset end{m_.data_end() * m_.cluster_size()};
    for (const HostRange& data : TRY(io::data_ranges(m_.view(), {{0}, end}))) {
      const std::uint64_t last = m_.cluster_of(data.end.value - 1);
      for (std::uint64_t cluster = m_.cluster_of(data.begin.value); cluster <= last;) {
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
    if (!m_.is_sound_block(raw) || !may_differ(first, first + per_block))
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
      for (std::uint64_t word = first; word < first + per_block; word += 64) {
        for (std::uint64_t bits = differing_bits(word); bits != 0; bits &= bits - 1) {
          const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
          const std::uint64_t was = qcow2::refcount_at(stored, order, cluster - first);
          const std::uint64_t right = right_refcount(m_, cluster);
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
    TRY(stage(m_.phase_at(at, Phase::secure), at, stored, raised));
    // Also in a fresh block, which counts from the moment on that it is linked.
    return stage(Phase::release, at, raised, lowered);
  }

  [[nodiscard]] bool may_differ(std::uint64_t first, std::uint64_t end) const {
    for (std::uint64_t word = first; word < end; word += 64) {
      if (differing_bits(word) != 0)
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
  bool has_changed_ = false;
};

}  // namespace

Result<bool> drop_bad_blocks(Mender& mender) {
  return TableMender(mender).drop_bad();
}

Result<bool> mend_refcount_tables(Mender& mender) {
  return TableMender(mender).mend();
}

Result<bool> mend_refcounts(Mender& mender) {
  return CountMender(mender).mend();
}

}  // namespace coldchain::ops
