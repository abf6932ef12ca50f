// SPDX-License-Identifier: MIT
// The half of ImageEditor that counts: which host clusters are free, taken and released, and what
// that makes of refcounts, refcount blocks and their table.
#include "extents.hpp"
#include "image_editor.hpp"

#include <algorithm>
#include <bit>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

using edit::Phase;
using qcow2::copied_flag;

std::uint64_t ImageEditor::next_free(std::uint64_t from) const {
  const std::uint64_t end = std::max(checked_.claims.end(), checked_.stored.end());
  while (from < end) {
    const std::uint64_t word = align_down(from, 64);
    const check::StoredRefcounts::Word stored = checked_.stored.word(word);
    const std::uint64_t used = stored.one | stored.more | stored.unreadable |
                               checked_.claims.word(word).claimed | ((1ULL << (from - word)) - 1);
    if (used != ~std::uint64_t{0})
      return word + static_cast<std::uint64_t>(std::countr_one(used));
    from = word + 64;
  }
  return from;
}

std::uint64_t ImageEditor::next_used(std::uint64_t from, std::uint64_t end) const {
  const std::uint64_t end_of_used = std::max(checked_.claims.end(), checked_.stored.end());
  while (from < end && from < end_of_used) {
    const std::uint64_t word = align_down(from, 64);
    const check::StoredRefcounts::Word stored = checked_.stored.word(word);
    const std::uint64_t used =
        (stored.one | stored.more | stored.unreadable | checked_.claims.word(word).claimed) >>
        (from - word);
    if (used != 0)
      return std::min(end, from + static_cast<std::uint64_t>(std::countr_zero(used)));
    from = word + 64;
  }
  return end;
}

Result<void> ImageEditor::take(std::uint64_t first, std::uint64_t count) {
  cursor_ = first + count;
  const auto end = checked_mul(cursor_, cluster_size());
  if (!end || *end >= 1ULL << 56)
    return fail(ErrorCode::refused, "no host offset is left after the end of the image");
  transaction_.grow(*end);
  transaction_.allocate(count * cluster_size());
  append_range(taken_, {host_of(first), host_of(cursor_)});
  if (const std::uint64_t blocks = divide_up(cursor_, clusters_per_block());
      blocks > refcount_table_.size()) {
    TRY(check_table_size(blocks * sizeof(be64)));
    refcount_table_.resize(blocks);
  }
  return {};
}

Result<void> ImageEditor::check_table_size(std::uint64_t bytes) {
  if (bytes <= qcow2::limits::max_refcount_table_bytes)
    return {};
  return fail(
      ErrorCode::refused,
      fmt::format("the refcount table would need {} bytes, more than an image may have", bytes));
}

// The first cluster of a range without a refcount block becomes that block, and so counts itself:
// it is not in danger at the moment when the refcount table begins to name it.
Result<HostRange> ImageEditor::take_clusters(std::uint64_t most) {
  for (;;) {
    const std::uint64_t first = next_free(cursor_);
    const std::uint64_t block = first / clusters_per_block();
    const bool is_counted = block < refcount_table_.size() && refcount_table_[block] != 0;
    const std::uint64_t end = next_used(
        first, is_counted ? std::min(first + most, (block + 1) * clusters_per_block()) : first + 1);
    TRY(take(first, end - first));
    if (!add_block(block, first))
      return HostRange{host_of(first), host_of(end)};
  }
}

Result<std::uint64_t> ImageEditor::take_cluster() {
  return TRY(take_clusters(1)).begin.value >> geometry_.cluster_bits();
}

Result<std::uint64_t> ImageEditor::take_row(std::uint64_t count) {
  const std::uint64_t first = std::max({cursor_, checked_.claims.end(), checked_.stored.end()});
  TRY(take(first, count));
  for (std::uint64_t index = first / clusters_per_block();
       index <= (cursor_ - 1) / clusters_per_block(); ++index) {
    const std::uint64_t block = cursor_;
    if (refcount_table_[index] != 0)
      continue;
    TRY(take(block, 1));
    add_block(index, block);
  }
  return first;
}

// One after the other, as long as clusters follow each other and can count one more.
Result<HostOffset> ImageEditor::take_sectors(std::uint64_t bytes) {
  const auto cluster_of = [&](HostOffset at) { return at.value >> geometry_.cluster_bits(); };
  // As many again, so that an internal snapshot can be made, or applied.
  const std::uint64_t most_references =
      std::max<std::uint64_t>(1, qcow2::max_refcount(image_.header().refcount_order) / 2);
  const bool goes_on = !unused_sectors_.empty() &&
                       compressed_counts_.at(cluster_of(unused_sectors_.begin)) < most_references;
  if (goes_on && unused_sectors_.size() < bytes)
    TRY(extend_sectors());
  if (!goes_on || unused_sectors_.size() < bytes) {
    const std::uint64_t cluster = TRY(take_cluster());
    ++added_.data;
    unused_sectors_ = {host_of(cluster), host_of(cluster + 1)};
  }
  const HostOffset at = unused_sectors_.begin;
  unused_sectors_.begin = at + bytes;
  for (std::uint64_t cluster = cluster_of(at); cluster <= cluster_of(at + (bytes - 1)); ++cluster)
    ++compressed_counts_[cluster];
  return at;
}

// By the next cluster, where that is the lowest free one and needs no refcount block.
Result<void> ImageEditor::extend_sectors() {
  const std::uint64_t next = unused_sectors_.end.value >> geometry_.cluster_bits();
  const std::uint64_t block = next / clusters_per_block();
  const bool is_counted = block < refcount_table_.size() && refcount_table_[block] != 0;
  if (!is_counted || next_free(cursor_) != next)
    return {};
  TRY(take(next, 1));
  ++added_.data;
  unused_sectors_.end = host_of(next + 1);
  return {};
}

bool ImageEditor::add_block(std::uint64_t index, std::uint64_t cluster) {
  if (refcount_table_[index] != 0)
    return false;
  refcount_table_[index] = host_of(cluster).value;
  fresh_blocks_.insert(index);
  ++added_.refcounts;
  return true;
}

void ImageEditor::release(std::uint64_t first, std::uint64_t count) {
  append_range(released_, {host_of(first), host_of(first + count)});
}

// The table and the blocks that it alone names become visible by one write to the header, so none
// of them needs to count itself.
Result<void> ImageEditor::place_table() {
  const std::uint64_t per_block = clusters_per_block();
  const std::uint64_t entries_per_cluster = cluster_size() / sizeof(be64);
  const std::uint64_t first = std::max({cursor_, checked_.claims.end(), checked_.stored.end()});
  // Itself, blocks for itself, and a block for those.
  std::uint64_t clusters = 1;
  const auto entries = [&] {
    return divide_up(first + clusters + divide_up(clusters, per_block) + 2, per_block) + 1;
  };
  while (clusters * entries_per_cluster < entries())
    clusters *= 2;
  TRY(check_table_size(clusters * cluster_size()));
  table_at_ = host_of(TRY(take_row(clusters)));
  added_.refcounts += clusters;
  refcount_table_.resize(clusters * entries_per_cluster);
  release(image_.header().refcount_table_offset >> geometry_.cluster_bits(),
          image_.header().refcount_table_clusters);
  return {};
}

// A block goes with all others that count its cluster or whose clusters it counts.
Result<void> ImageEditor::drop_empty_blocks() {
  const std::uint64_t per_block = clusters_per_block();
  const unsigned order = image_.header().refcount_order;
  std::map<std::uint64_t, std::uint64_t> index_of;  // by cluster
  for (std::uint64_t index = 0; index < refcount_table_.size(); ++index) {
    if (refcount_table_[index] != 0)
      index_of[(refcount_table_[index] & qcow2::refcount_block_mask) >> geometry_.cluster_bits()] =
          index;
  }
  std::set<std::uint64_t> stays;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> together;
  Bytes block(cluster_size());
  for (const auto& [cluster, index] : index_of) {
    together.emplace_back(index, cluster / per_block);
    TRY(io::read_exactly(transaction_.view(), host_of(cluster), block, "refcount block"));
    for (std::uint64_t i = 0; i < per_block && !stays.contains(index); ++i) {
      if (qcow2::refcount_at(block, order, i) != 0 && !index_of.contains(index * per_block + i))
        stays.insert(index);
    }
  }
  for (std::size_t before = 0; before != stays.size();) {
    before = stays.size();
    for (const auto& [block_index, counted_in] : together) {
      if (stays.contains(block_index) || stays.contains(counted_in))
        stays.insert({block_index, counted_in});
    }
  }
  for (const auto& [cluster, index] : index_of) {
    if (!stays.contains(index))
      TRY(transaction_.stage_entry(Phase::settle, table_at_ + index * sizeof(be64), 0));
  }
  return {};
}

// Block after block.
Result<void> ImageEditor::change_counts(edit::Phase phase, const std::vector<HostRange>& ranges,
                                        const CountChange& change) {
  const std::uint64_t per_block = clusters_per_block();
  const unsigned order = image_.header().refcount_order;
  constexpr std::uint64_t none = ~std::uint64_t{0};
  std::uint64_t open = none;
  bool is_new = false;
  Bytes before;
  Bytes block;
  const auto block_at = [&] {
    return HostOffset{refcount_table_[open] & qcow2::refcount_block_mask};
  };
  const auto close = [&]() -> Result<void> {
    if (open == none)
      return {};
    if (is_new && transaction_.counts_fresh())
      return stage_counted(block_at());
    return is_new ? transaction_.stage_fresh(block_at(), block)
                  : stage_changes(phase, block_at(), before, block);
  };
  for (const HostRange& range : ranges) {
    const std::uint64_t end = range.end.value >> geometry_.cluster_bits();
    for (std::uint64_t cluster = range.begin.value >> geometry_.cluster_bits(); cluster < end;
         ++cluster) {
      const std::uint64_t index = cluster / per_block;
      if (index != open) {
        TRY(close());
        open = index;
        is_new = phase == Phase::secure && fresh_blocks_.contains(index);
        if (!is_new) {
          block.resize(cluster_size());
          TRY(io::read_exactly(transaction_.view(), block_at(), block, "refcount block"));
          before = block;
        } else if (!transaction_.counts_fresh()) {
          block.assign(cluster_size(), std::byte{0});
        }
      }
      if (is_new && transaction_.counts_fresh()) {
        cluster = (index + 1) * per_block - 1;  // whatever its counts are
        continue;
      }
      qcow2::set_refcount_at(
          block, order, cluster % per_block,
          change(cluster, qcow2::refcount_at(block, order, cluster % per_block)));
    }
  }
  return close();
}

// Counts in blocks that are there already go up before anything refers to the clusters; fresh
// blocks are written whole.
Result<void> ImageEditor::count_taken() {
  return change_counts(Phase::secure, taken_, [&](std::uint64_t cluster, std::uint64_t) {
    const auto compressed = compressed_counts_.find(cluster);
    return compressed == compressed_counts_.end() ? 1 : compressed->second;
  });
}

Result<void> ImageEditor::count_released() {
  std::sort(released_.begin(), released_.end(),
            [](const HostRange& a, const HostRange& b) { return a.begin < b.begin; });
  // What has found the image sound has seen that each is counted as often as it is referred to.
  return change_counts(Phase::release, released_, [&](std::uint64_t cluster, std::uint64_t count) {
    if (count == 2)
      append_range(left_to_one_, {host_of(cluster), host_of(cluster + 1)});
    return count - 1;
  });
}

// Of what an internal snapshot shared with the active state, and does no more.
Result<void> ImageEditor::stage_copied_flags() {
  if (left_to_one_.empty())
    return {};
  const std::vector<HostRange> left = sorted_and_merged(left_to_one_);
  const auto becomes_own = [&](HostOffset cluster) {
    const auto next =
        std::upper_bound(left.begin(), left.end(), cluster,
                         [](HostOffset at, const HostRange& range) { return at < range.begin; });
    return next != left.begin() && cluster < std::prev(next)->end;
  };
  std::vector<be64> l1(image_.header().l1_size);
  const HostOffset l1_at{image_.header().l1_table_offset};
  TRY(io::read_exactly(transaction_.view(), l1_at, writable_bytes_of(l1), "L1 table"));
  Bytes table(cluster_size());
  for (std::uint64_t index = 0; index < l1.size(); ++index) {
    const qcow2::L1Entry l1_entry(l1[index].get());
    if (!l1_entry.has_l2_table())
      continue;
    if (becomes_own(l1_entry.l2_table()))
      TRY(transaction_.stage_entry(Phase::settle, l1_at + index * sizeof(be64),
                                   l1[index].get() | copied_flag));
    TRY(io::read_exactly(transaction_.view(), l1_entry.l2_table(), table, "L2 table"));
    for (std::uint64_t at = 0; at < table.size(); at += geometry_.l2_entry_bytes()) {
      const std::uint64_t raw = load<be64>(table, at)->get();
      const qcow2::L2Entry l2_entry(raw);
      if (!l2_entry.is_compressed() && becomes_own(l2_entry.host_offset()))
        TRY(transaction_.stage_entry(Phase::settle, l1_entry.l2_table() + at, raw | copied_flag));
    }
  }
  return {};
}

// The counts of what was there before may have gone down.
Result<HostOffset> ImageEditor::end_of_image() const {
  const HostOffset end_of_taken = taken_.empty() ? HostOffset{} : taken_.back().end;
  const HostOffset end_before{checked_.counts.image_end_offset};
  if (end_of_taken >= end_before)
    return end_of_taken;
  Bytes block(cluster_size());
  HostOffset block_at;
  for (std::uint64_t cluster = end_before.value >> geometry_.cluster_bits(); cluster-- > 0;) {
    if (host_of(cluster) < end_of_taken)
      return end_of_taken;
    const std::uint64_t index = cluster / clusters_per_block();
    const HostOffset at{refcount_table_[index] & qcow2::refcount_block_mask};
    if (at.value == 0) {
      cluster = index * clusters_per_block();
      continue;
    }
    if (at != block_at)
      TRY(io::read_exactly(transaction_.view(), at, block, "refcount block"));
    block_at = at;
    if (qcow2::refcount_at(block, image_.header().refcount_order, cluster % clusters_per_block()) !=
        0)
      return host_of(cluster + 1);
  }
  return HostOffset{};
}

Result<void> ImageEditor::stage_table_entries() {
  for (const std::uint64_t index : fresh_blocks_)
    TRY(transaction_.stage_entry(Phase::extend, table_at_ + index * sizeof(be64),
                                 refcount_table_[index]));
  return {};
}

Result<void> ImageEditor::stage_table() {
  Bytes content;
  content.reserve(refcount_table_.size() * sizeof(be64));
  for (const std::uint64_t raw : refcount_table_)
    append(content, be64(raw));
  TRY(transaction_.stage_fresh(table_at_, content));
  Bytes fields;
  append(fields, be64(table_at_.value));
  append(fields, be32(static_cast<std::uint32_t>(content.size() / cluster_size())));
  return transaction_.stage(Phase::extend, {offsetof(qcow2::wire::Header, refcount_table_offset)},
                            fields);
}

}  // namespace coldchain::ops
