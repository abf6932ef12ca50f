// SPDX-License-Identifier: MIT
// The blocks and the table that hold the refcounts, where they cannot be right. A block or table is
// never mended in place: a fresh one takes its place, and the reference to it is one write. In a
// fresh block every cluster of the file that has data counts as used once, so that what nothing
// refers to is a leak like any other and is freed by the same rules.
#include "mender.hpp"

#include <algorithm>
#include <bit>
#include <set>

#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Structure;
using qcow2::refcount_block_mask;

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
          "without the refcount table coldchain cannot know which clusters of the device hold lost "
          "data: repair a copy in a file, or give --free-orphans";
      m_.has_left_tables = true;
      return false;
    }
    const bool needs_table =
        is_table_bad || (!missing_.empty() && *missing_.rbegin() >= table_.size());
    const std::uint64_t clusters = missing_.size() + (needs_table ? table_clusters() : 0);
    if (!m_.can_append(clusters)) {
      m_.has_left_tables = true;
      return false;
    }
    TRY(m_.check_growth(clusters));
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
      return fail(ErrorCode::refused, fmt::format("a refcount table for {} clusters is too large: "
                                                  "truncate the file to the part that is used",
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
    // A block may describe millions of clusters, of which few are referred to.
    const check::Claims& claims = m_.checked->claims;
    for (std::uint64_t word = align_down(claims.next_used(first), 64); word < first + per_block;
         word = align_down(claims.next_used(word + 64), 64)) {
      for (std::uint64_t bits = claims.word(word).claimed; bits != 0; bits &= bits - 1) {
        const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
        if (const std::uint64_t refcount = m_.right_refcount(cluster); refcount != 0)
          qcow2::set_refcount_at(block, m_.header().refcount_order, cluster - first, refcount);
      }
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

}  // namespace

Result<bool> drop_bad_blocks(Mender& mender) {
  return TableMender(mender).drop_bad();
}

Result<bool> mend_refcount_tables(Mender& mender) {
  return TableMender(mender).mend();
}

}  // namespace coldchain::ops
