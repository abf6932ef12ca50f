// SPDX-License-Identifier: MIT
#include "image_editor.hpp"

#include <algorithm>
#include <bit>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using qcow2::copied_flag;

constexpr std::uint64_t sector_size = io::OverlayFile::sector_size;

void append_range(std::vector<HostRange>& ranges, HostRange range) {
  if (!ranges.empty() && ranges.back().end == range.begin)
    ranges.back().end = range.end;
  else
    ranges.push_back(range);
}

}  // namespace

ImageEditor::ImageEditor(edit::Transaction& transaction, const qcow2::Image& image,
                         const check::CheckResult& checked)
    : transaction_(transaction),
      image_(image),
      checked_(checked),
      geometry_(image.header()),
      refcount_table_(checked.stored.table()),
      table_at_{image.header().refcount_table_offset} {
  // The entries that are not used were left out.
  entries_before_ = image.header().refcount_table_clusters * cluster_size() / sizeof(be64);
  refcount_table_.resize(entries_before_);
}

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

Result<void> ImageEditor::take(std::uint64_t first, std::uint64_t count) {
  cursor_ = first + count;
  const auto end = checked_mul(cursor_, cluster_size());
  if (!end || *end >= 1ULL << 56)
    return fail(ErrorCode::refused, "no host offset is left behind the end of the image");
  transaction_.grow(*end);
  transaction_.allocate(count * cluster_size());
  append_range(taken_, {host_of(first), host_of(cursor_)});
  if (cursor_ > refcount_table_.size() * clusters_per_block())
    refcount_table_.resize(divide_up(cursor_, clusters_per_block()));
  return {};
}

// The first cluster of a range without a refcount block becomes that block, and so counts itself:
// it is not in danger at the moment when the refcount table begins to name it.
Result<std::uint64_t> ImageEditor::take_cluster() {
  for (;;) {
    const std::uint64_t cluster = next_free(cursor_);
    TRY(take(cluster, 1));
    if (!add_block(cluster / clusters_per_block(), cluster))
      return cluster;
  }
}

bool ImageEditor::add_block(std::uint64_t index, std::uint64_t cluster) {
  if (refcount_table_[index] != 0)
    return false;
  refcount_table_[index] = host_of(cluster).value;
  fresh_blocks_.insert(index);
  ++added_.refcounts;
  return true;
}

std::uint64_t ImageEditor::entry(std::uint64_t index, unsigned word) const {
  return load<be64>(table_->bytes, index * geometry_.l2_entry_bytes() + word * sizeof(be64))->get();
}

void ImageEditor::set_entry(std::uint64_t index, unsigned word, std::uint64_t value) {
  const be64 raw(value);
  const ByteView bytes = bytes_of(raw);
  std::copy(bytes.begin(), bytes.end(),
            table_->bytes.begin() + static_cast<std::ptrdiff_t>(index * geometry_.l2_entry_bytes() +
                                                                word * sizeof(be64)));
}

Result<void> ImageEditor::open_table(GuestOffset offset) {
  const std::uint64_t l1_index = geometry_.l1_index(offset);
  if (table_ && table_->l1_index == l1_index)
    return {};
  TRY(close_table());
  const HostOffset at{image_.header().l1_table_offset + l1_index * sizeof(be64)};
  be64 raw;
  TRY(io::read_exactly(image_.file(), at, std::as_writable_bytes(std::span(&raw, 1)), "L1 entry"));
  Table table;
  table.l1_index = l1_index;
  table.at = qcow2::L1Entry(raw.get()).l2_table();
  table.bytes.resize(cluster_size());
  const bool exists = qcow2::L1Entry(raw.get()).has_l2_table();
  if (exists)
    TRY(io::read_exactly(image_.file(), table.at, table.bytes, "L2 table"));
  table.is_fresh = (raw.get() & copied_flag) == 0;
  if (table.is_fresh) {
    // A snapshot keeps the one that it shares.
    if (exists)
      release(table.at.value >> geometry_.cluster_bits(), 1);
    table.at = host_of(TRY(take_cluster()));
    ++added_.l2_tables;
    TRY(transaction_.stage_entry(Phase::link, at, table.at.value | copied_flag));
  } else {
    table.before = table.bytes;
  }
  table_ = std::move(table);
  return {};
}

Result<void> ImageEditor::close_table() {
  if (!table_)
    return {};
  if (table_->is_fresh)
    TRY(transaction_.stage_fresh(table_->at, table_->bytes));
  else
    TRY(stage_changes(Phase::link, table_->at, table_->before, table_->bytes));
  table_.reset();
  return {};
}

Result<void> ImageEditor::stage_changes(Phase phase, HostOffset at, ByteView before,
                                        ByteView after) {
  for (std::uint64_t i = 0; i < after.size(); i += sector_size) {
    const ByteView now = after.subspan(i, sector_size);
    const ByteView then = before.subspan(i, sector_size);
    if (!std::equal(now.begin(), now.end(), then.begin()))
      TRY(transaction_.stage(phase, at + i, now));
  }
  return {};
}

std::uint32_t ImageEditor::subclusters_of(GuestRange part) const {
  const std::uint64_t size = geometry_.subcluster_size();
  const std::uint64_t first = geometry_.in_cluster(part.begin.value) / size;
  const std::uint64_t count = divide_up(part.size(), size);
  return static_cast<std::uint32_t>(((1ULL << count) - 1) << first);
}

void ImageEditor::release(std::uint64_t first, std::uint64_t count) {
  append_range(released_, {host_of(first), host_of(first + count)});
}

Result<void> ImageEditor::allocate_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  const std::uint64_t old = entry(index, 0);
  const bool has_host = (old & qcow2::offset_mask) != 0;
  if (!has_host || (old & copied_flag) == 0) {
    const std::uint64_t cluster = TRY(take_cluster());
    ++added_.data;
    if (has_host)
      release((old & qcow2::offset_mask) >> geometry_.cluster_bits(), 1);
    set_entry(index, 0, host_of(cluster).value | copied_flag);
  }
  const HostOffset host{(entry(index, 0) & qcow2::offset_mask) +
                        geometry_.in_cluster(part.begin.value)};
  // The file may end in a cluster that is there already.
  transaction_.grow(align_up(host.value + 1, cluster_size()));
  // Behind the end of the disk, too, nothing may come to light that was there before.
  append_range(fresh_data_, {host, host + align_up(part.size(), geometry_.subcluster_size())});
  if (geometry_.subclusters_per_cluster() > 1) {
    const std::uint64_t allocated = subclusters_of(part);
    set_entry(index, 1, (entry(index, 1) | allocated) & ~(allocated << 32));
  }
  return {};
}

Result<void> ImageEditor::set_zero_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  if (geometry_.subclusters_per_cluster() > 1)
    set_entry(index, 1, entry(index, 1) | std::uint64_t{subclusters_of(part)} << 32);
  else
    set_entry(index, 0, qcow2::zero_flag);
  return {};
}

Result<void> ImageEditor::allocate(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::allocate_in_cluster);
}

Result<void> ImageEditor::set_zero(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::set_zero_in_cluster);
}

Result<void> ImageEditor::for_each_cluster(GuestRange range,
                                           Result<void> (ImageEditor::*action)(GuestRange)) {
  for (GuestOffset at = range.begin; at < range.end;) {
    const GuestOffset next{align_down(at.value, cluster_size()) + cluster_size()};
    TRY(open_table(at));
    TRY((this->*action)({at, std::min(next, range.end)}));
    at = next;
  }
  return {};
}

Result<void> ImageEditor::finish() {
  TRY(close_table());
  if (refcount_table_.size() > entries_before_)
    TRY(place_table());
  TRY(count_taken());
  TRY(count_released());
  return is_table_fresh() ? stage_table() : stage_table_entries();
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
  if (clusters * cluster_size() > qcow2::limits::max_refcount_table_bytes)
    return fail(ErrorCode::refused,
                fmt::format("the refcount table would need {} bytes, more than an image may have",
                            clusters * cluster_size()));
  TRY(take(first, clusters));
  added_.refcounts += clusters;
  refcount_table_.resize(clusters * entries_per_cluster);
  for (std::uint64_t index = first / per_block; index <= (cursor_ - 1) / per_block; ++index) {
    if (refcount_table_[index] != 0)
      continue;
    const std::uint64_t block = cursor_;
    TRY(take(block, 1));
    add_block(index, block);
  }
  const HostOffset old = table_at_;
  table_at_ = host_of(first);
  release(old.value >> geometry_.cluster_bits(), image_.header().refcount_table_clusters);
  return {};
}

// Calls `change` for the count of each cluster, block after block.
Result<void> ImageEditor::change_counts(edit::Phase phase, const std::vector<HostRange>& ranges,
                                        const std::function<std::uint64_t(std::uint64_t)>& change) {
  const std::uint64_t per_block = clusters_per_block();
  const unsigned order = image_.header().refcount_order;
  std::uint64_t open = ~std::uint64_t{0};
  Bytes before;
  Bytes block;
  const auto close = [&]() -> Result<void> {
    if (open == ~std::uint64_t{0})
      return {};
    const HostOffset at{refcount_table_[open] & qcow2::refcount_block_mask};
    const bool is_new = phase == Phase::secure && fresh_blocks_.contains(open);
    return is_new ? transaction_.stage_fresh(at, block) : stage_changes(phase, at, before, block);
  };
  for (const HostRange& range : ranges) {
    const std::uint64_t end = range.end.value >> geometry_.cluster_bits();
    for (std::uint64_t cluster = range.begin.value >> geometry_.cluster_bits(); cluster < end;
         ++cluster) {
      if (const std::uint64_t index = cluster / per_block; index != open) {
        TRY(close());
        open = index;
        block.assign(cluster_size(), std::byte{0});
        if (phase != Phase::secure || !fresh_blocks_.contains(index))
          TRY(io::read_exactly(transaction_.view(),
                               {refcount_table_[index] & qcow2::refcount_block_mask}, block,
                               "refcount block"));
        before = block;
      }
      qcow2::set_refcount_at(block, order, cluster % per_block,
                             change(qcow2::refcount_at(block, order, cluster % per_block)));
    }
  }
  return close();
}

// Counts in blocks that are there already go up before anything refers to the clusters; fresh
// blocks are written whole.
Result<void> ImageEditor::count_taken() {
  return change_counts(Phase::secure, taken_, [](std::uint64_t) { return 1; });
}

Result<void> ImageEditor::count_released() {
  std::sort(released_.begin(), released_.end(),
            [](const HostRange& a, const HostRange& b) { return a.begin < b.begin; });
  // What has found the image sound has seen that each is counted as often as it is referred to.
  return change_counts(Phase::release, released_, [](std::uint64_t count) { return count - 1; });
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

Result<void> clear_unknown_autoclear(edit::Transaction& transaction, const qcow2::Header& header) {
  constexpr std::uint64_t known = qcow2::autoclear::bitmaps | qcow2::autoclear::raw_external_data;
  if (header.version < 3 || (header.autoclear_features & ~known) == 0)
    return {};
  return transaction.stage_entry(
      Phase::announce,
      {sizeof(qcow2::wire::Header) + offsetof(qcow2::wire::HeaderVersion3, autoclear_features)},
      header.autoclear_features & known);
}

}  // namespace coldchain::ops
