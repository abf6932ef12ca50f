// SPDX-License-Identifier: MIT
#include "image_editor.hpp"

#include "extents.hpp"

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

}  // namespace

ImageEditor::ImageEditor(edit::Transaction& transaction, const qcow2::Image& image,
                         const check::CheckResult& checked)
    : transaction_(transaction),
      image_(image),
      checked_(checked),
      geometry_(image.header()),
      l1_at_{image.header().l1_table_offset},
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

Result<HostOffset> ImageEditor::add_cluster() {
  ++added_.others;
  return host_of(TRY(take_cluster()));
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
  be64 raw;
  if (l1_index < image_.header().l1_size)
    TRY(io::read_exactly(image_.file(), {image_.header().l1_table_offset + l1_index * sizeof(be64)},
                         std::as_writable_bytes(std::span(&raw, 1)), "L1 entry"));
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
    l1_entries_[l1_index] = table.at.value | copied_flag;
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

void ImageEditor::release_entry(qcow2::L2Entry entry) {
  if (entry.is_compressed()) {
    const qcow2::CompressedExtent extent = entry.compressed_extent(geometry_.cluster_bits());
    const std::uint64_t first = extent.begin.value >> geometry_.cluster_bits();
    const std::uint64_t last =
        (extent.begin.value + extent.max_bytes - 1) >> geometry_.cluster_bits();
    release(first, last - first + 1);
  } else if (entry.host_offset().value != 0) {
    release(entry.host_offset().value >> geometry_.cluster_bits(), 1);
  }
}

void ImageEditor::add_data(GuestRange part, std::uint64_t size) {
  const HostOffset cluster = qcow2::L2Entry(entry(geometry_.l2_index(part.begin), 0)).host_offset();
  const HostOffset host = cluster + geometry_.in_cluster(part.begin.value);
  // The file may end in a cluster that is there already.
  transaction_.grow(align_up(host.value + 1, cluster_size()));
  append_range(data_, {host, host + size});
}

// The host cluster of an entry, which has none but its own afterwards.
Result<HostOffset> ImageEditor::own_cluster(std::uint64_t index) {
  const qcow2::L2Entry old(entry(index, 0));
  if (!old.is_compressed() && old.host_offset().value != 0 && old.is_copied())
    return old.host_offset();
  const HostOffset host = host_of(TRY(take_cluster()));
  ++added_.data;
  release_entry(old);
  // What was allocated in the other one is not here, behind the end of the disk either.
  if (geometry_.subclusters_per_cluster() > 1)
    set_entry(index, 1, entry(index, 1) & ~std::uint64_t{~std::uint32_t{0}});
  return host;
}

Result<void> ImageEditor::allocate_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  set_entry(index, 0, TRY(own_cluster(index)).value | copied_flag);
  // Behind the end of the disk, too, nothing may come to light that was there before.
  add_data(part, align_up(part.size(), geometry_.subcluster_size()));
  if (geometry_.subclusters_per_cluster() > 1) {
    const std::uint64_t allocated = subclusters_of(part);
    set_entry(index, 1, (entry(index, 1) | allocated) & ~(allocated << 32));
  }
  return {};
}

Result<void> ImageEditor::set_zero_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  const qcow2::L2Entry old(entry(index, 0));
  if (geometry_.subclusters_per_cluster() == 1) {
    release_entry(old);
    set_entry(index, 0, qcow2::zero_flag);
    return {};
  }
  const std::uint64_t zero = subclusters_of(part);
  const std::uint64_t bitmap = (entry(index, 1) | zero << 32) & ~zero;
  set_entry(index, 1, bitmap);
  // Nobody needs a place for what is zero throughout.
  if (old.is_compressed() || qcow2::SubclusterBitmap(bitmap).zero() == ~std::uint32_t{0}) {
    release_entry(old);
    set_entry(index, 0, 0);
  }
  return {};
}

Result<void> ImageEditor::reserve_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  const std::uint64_t place = TRY(own_cluster(index)).value | copied_flag;
  if (geometry_.subclusters_per_cluster() == 1) {
    set_entry(index, 0, place | qcow2::zero_flag);
  } else {
    const std::uint64_t zero = subclusters_of(part);
    set_entry(index, 0, place);
    set_entry(index, 1, (entry(index, 1) | zero << 32) & ~zero);
  }
  add_data(part, align_up(part.size(), geometry_.subcluster_size()));
  return {};
}

Result<void> ImageEditor::overwrite_in_cluster(GuestRange part) {
  add_data(part, part.size());
  return {};
}

Result<void> ImageEditor::overwrite(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::overwrite_in_cluster);
}

std::vector<HostRange> ImageEditor::sorted_data() const {
  return sorted_and_merged(data_);
}

Result<void> ImageEditor::allocate(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::allocate_in_cluster);
}

Result<void> ImageEditor::set_zero(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::set_zero_in_cluster);
}

Result<void> ImageEditor::reserve(GuestRange range) {
  return for_each_cluster(range, &ImageEditor::reserve_in_cluster);
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

// Where the table's clusters have room, its end becomes part of it; else it moves. Entries that are
// new are empty, so that each of the two sizes is right with it.
Result<void> ImageEditor::grow_disk(std::uint64_t size) {
  const qcow2::Header& header = image_.header();
  const std::uint64_t entries = divide_up(size, geometry_.l2_coverage());
  if (entries > header.l1_size)
    TRY(place_l1_table(entries));
  return transaction_.stage_entry(Phase::conclude, {offsetof(qcow2::wire::Header, size)}, size);
}

Result<void> ImageEditor::place_l1_table(std::uint64_t entries) {
  const qcow2::Header& header = image_.header();
  const std::uint64_t bytes = entries * sizeof(be64);
  if (bytes > qcow2::limits::max_l1_bytes)
    return fail(
        ErrorCode::refused,
        fmt::format("the L1 table would need {} bytes, more than an image may have", bytes));
  const std::uint64_t bytes_before = std::uint64_t{header.l1_size} * sizeof(be64);
  const std::uint64_t room = align_up(bytes_before, cluster_size());
  if (bytes <= room) {
    TRY(transaction_.stage(Phase::fresh, l1_at_ + bytes_before, Bytes(bytes - bytes_before)));
  } else {
    const std::uint64_t clusters = divide_up(bytes, cluster_size());
    Bytes table(bytes_before);
    TRY(io::read_exactly(image_.file(), l1_at_, table, "L1 table"));
    table.resize(clusters * cluster_size());
    release(l1_at_.value >> geometry_.cluster_bits(), room / cluster_size());
    l1_at_ = host_of(TRY(take_row(clusters)));
    added_.others += clusters;
    TRY(transaction_.stage_fresh(l1_at_, table));
  }
  Bytes fields;
  append(fields, be32(static_cast<std::uint32_t>(entries)));
  append(fields, be64(l1_at_.value));
  // Not before the refcount blocks that count the table are known to everybody.
  return transaction_.stage(Phase::link, {offsetof(qcow2::wire::Header, l1_size)}, fields);
}

Result<void> ImageEditor::stage_l1_entries() {
  for (const auto& [index, entry] : l1_entries_)
    TRY(transaction_.stage_entry(Phase::link, l1_at_ + index * sizeof(be64), entry));
  return {};
}

Result<void> ImageEditor::finish() {
  TRY(close_table());
  TRY(stage_l1_entries());
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
  table_at_ = host_of(TRY(take_row(clusters)));
  added_.refcounts += clusters;
  refcount_table_.resize(clusters * entries_per_cluster);
  release(image_.header().refcount_table_offset >> geometry_.cluster_bits(),
          image_.header().refcount_table_clusters);
  return {};
}

// Reads through the L1 table fall through to the backing file one entry after the other; only then
// does anybody else get the clusters. Blocks go last: what they count counts as free without them.
Result<void> ImageEditor::empty() {
  std::vector<be64> l1(image_.header().l1_size);
  TRY(io::read_exactly(image_.file(), l1_at_, writable_bytes_of(l1), "L1 table"));
  Bytes table(cluster_size());
  const std::uint64_t entry_size = geometry_.l2_entry_bytes();
  for (std::uint64_t index = 0; index < l1.size(); ++index) {
    const qcow2::L1Entry l1_entry(l1[index].get());
    if (!l1_entry.has_l2_table())
      continue;
    l1_entries_[index] = 0;
    release(l1_entry.l2_table().value >> geometry_.cluster_bits(), 1);
    TRY(io::read_exactly(image_.file(), l1_entry.l2_table(), table, "L2 table"));
    for (std::uint64_t at = 0; at < table.size(); at += entry_size) {
      const qcow2::L2Entry l2_entry(load<be64>(table, at)->get());
      // What lies in an external data file is not counted.
      if (!image_.header().has_data_file())
        release_entry(l2_entry);
    }
  }
  TRY(stage_l1_entries());
  TRY(count_released());
  return drop_empty_blocks();
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
