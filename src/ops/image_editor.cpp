// SPDX-License-Identifier: MIT
#include "image_editor.hpp"

#include "extents.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using qcow2::copied_flag;

// Where data goes; each takes memory.
constexpr std::uint64_t least_ranges = 1ULL << 18;

}  // namespace

ImageEditor::ImageEditor(edit::Transaction& transaction, const qcow2::Image& image,
                         const check::CheckResult& checked)
    : transaction_(transaction),
      image_(image),
      checked_(checked),
      geometry_(image.header()),
      l1_at_{image.header().l1_table_offset},
      l1_size_(image.header().l1_size),
      refcount_table_(checked.stored.table()),
      table_at_{image.header().refcount_table_offset},
      most_ranges_(least_ranges + edit::storage_to_expect(image.file()) / edit::sector_size) {
  // The entries that are not used were left out.
  entries_before_ = image.header().refcount_table_clusters * cluster_size() / sizeof(be64);
  refcount_table_.resize(entries_before_);
}

Result<HostOffset> ImageEditor::add_cluster() {
  ++added_.others;
  return host_of(TRY(take_cluster()));
}

Result<HostOffset> ImageEditor::add_clusters(std::uint64_t count) {
  if (count == 1)
    return add_cluster();
  added_.others += count;
  return host_of(TRY(take_row(count)));
}

void ImageEditor::remove_clusters(HostOffset first, std::uint64_t count) {
  release(first.value >> geometry_.cluster_bits(), count);
}

std::uint64_t ImageEditor::entry(std::uint64_t index, unsigned word) {
  table_->bytes.resize(cluster_size());
  return load<be64>(table_->bytes, index * geometry_.l2_entry_bytes() + word * sizeof(be64))->get();
}

void ImageEditor::set_entry(std::uint64_t index, unsigned word, std::uint64_t value) {
  table_->bytes.resize(cluster_size());
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
  if (is_snapshot_ && l1_index >= l1_size_)
    return fail(ErrorCode::refused,
                "the L1 table of an internal snapshot is shorter than its disk");
  be64 raw;
  if (l1_index < l1_size_)
    TRY(io::read_exactly(image_.file(), l1_at_ + l1_index * sizeof(be64),
                         std::as_writable_bytes(std::span(&raw, 1)), "L1 entry"));
  Table table;
  table.l1_index = l1_index;
  table.at = qcow2::L1Entry(raw.get()).l2_table();
  const bool exists = qcow2::L1Entry(raw.get()).has_l2_table();
  if (exists || !transaction_.counts_fresh())
    table.bytes.resize(cluster_size());
  if (exists)
    TRY(io::read_exactly(image_.file(), table.at, table.bytes, "L2 table"));
  const bool is_own =
      is_snapshot_
          ? exists && checked_.stored.is_one(table.at.value >> geometry_.cluster_bits()) == true
          : (raw.get() & copied_flag) != 0;
  table.is_fresh = !is_own;
  table.is_new = !exists;
  if (table.is_fresh) {
    // Whoever else has it keeps it.
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
  if (table_->bytes.empty())
    TRY(stage_counted(table_->at));
  else if (table_->is_fresh)
    TRY(transaction_.stage_fresh(table_->at, table_->bytes));
  else
    TRY(stage_changes(Phase::link, table_->at, table_->before, table_->bytes));
  table_.reset();
  return {};
}

Result<void> ImageEditor::stage_counted(HostOffset at) {
  blank_.resize(cluster_size());
  return transaction_.stage_fresh(at, blank_);
}

Result<void> ImageEditor::stage_changes(Phase phase, HostOffset at, ByteView before,
                                        ByteView after) {
  for (std::uint64_t i = 0; i < after.size(); i += edit::sector_size) {
    const ByteView now = after.subspan(i, edit::sector_size);
    const ByteView then = before.subspan(i, edit::sector_size);
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

Result<void> ImageEditor::append_data(HostRange range) {
  append_range(data_, range);
  if (data_.size() > most_ranges_)
    return fail(ErrorCode::too_large,
                fmt::format("the change needs more than {} separate ranges of the file at once",
                            most_ranges_));
  return {};
}

Result<void> ImageEditor::add_data(GuestRange part, std::uint64_t size) {
  const HostOffset cluster = qcow2::L2Entry(entry(geometry_.l2_index(part.begin), 0)).host_offset();
  const HostOffset host = cluster + geometry_.in_cluster(part.begin.value);
  // The file may end in a cluster that is there already.
  transaction_.grow(align_up(host.value + 1, cluster_size()));
  return append_data({host, host + size});
}

// The host cluster of an entry, which has none but its own afterwards.
Result<HostOffset> ImageEditor::own_cluster(std::uint64_t index) {
  const qcow2::L2Entry old(entry(index, 0));
  if (old.has_own_cluster() && (!is_snapshot_ || old.host_offset() == last_own_))
    return old.host_offset();
  const HostOffset host = host_of(TRY(take_cluster()));
  last_own_ = host;
  ++added_.data;
  release_entry(old);
  // What was allocated in the other one is not here, behind the end of the disk either.
  if (geometry_.subclusters_per_cluster() > 1)
    set_entry(index, 1, entry(index, 1) & ~std::uint64_t{~std::uint32_t{0}});
  return host;
}

Result<void> ImageEditor::place_in_cluster(GuestRange part, bool as_zeros) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  const bool is_extended = geometry_.subclusters_per_cluster() > 1;
  const std::uint64_t zero_mark = as_zeros && !is_extended ? qcow2::zero_flag : 0;
  set_entry(index, 0, TRY(own_cluster(index)).value | copied_flag | zero_mark);
  // Behind the end of the disk, too, nothing may come to light that was there before.
  TRY(add_data(part, align_up(part.size(), geometry_.subcluster_size())));
  if (is_extended) {
    const std::uint64_t allocated = subclusters_of(part);
    const std::uint64_t zero = allocated << 32;
    const std::uint64_t bitmap = entry(index, 1) & ~(allocated | zero);
    set_entry(index, 1, bitmap | (as_zeros ? zero : allocated));
  }
  return {};
}

Result<void> ImageEditor::place_compressed(GuestOffset cluster, qcow2::CompressedExtent stream) {
  TRY(open_table(cluster));
  const std::uint64_t index = geometry_.l2_index(cluster);
  const HostRange from = stream.sectors();
  const HostOffset at = TRY(take_sectors(from.size()));
  if (at + from.size() > qcow2::L2Entry::end_of_compressed(geometry_.cluster_bits()))
    return fail(ErrorCode::refused,
                "a compressed cluster cannot lie at so high an offset: give --decompress");
  release_entry(qcow2::L2Entry(entry(index, 0)));
  const qcow2::CompressedExtent placed{at + (stream.begin - from.begin), stream.max_bytes};
  set_entry(index, 0, qcow2::L2Entry(placed, geometry_.cluster_bits()).raw());
  if (geometry_.subclusters_per_cluster() > 1)
    set_entry(index, 1, 0);
  return append_data({at, at + from.size()});
}

void ImageEditor::set_zero_in_cluster(GuestRange part) {
  const std::uint64_t index = geometry_.l2_index(part.begin);
  const qcow2::L2Entry old(entry(index, 0));
  if (geometry_.subclusters_per_cluster() == 1) {
    release_entry(old);
    set_entry(index, 0, qcow2::zero_flag);
    return;
  }
  const std::uint64_t zero = subclusters_of(part);
  const std::uint64_t bitmap = (entry(index, 1) | zero << 32) & ~zero;
  set_entry(index, 1, bitmap);
  // Nobody needs a place for what is zero throughout.
  if (old.is_compressed() || qcow2::SubclusterBitmap(bitmap).zero() == ~std::uint32_t{0}) {
    release_entry(old);
    set_entry(index, 0, 0);
  }
}

std::vector<HostRange> ImageEditor::sorted_data() const {
  return sorted_and_merged(data_);
}

template <class Action>
Result<void> ImageEditor::for_each_cluster(GuestRange range, const Action& action) {
  for (GuestOffset at = range.begin; at < range.end;) {
    const GuestOffset next{align_down(at.value, cluster_size()) + cluster_size()};
    TRY(open_table(at));
    TRY(action(GuestRange{at, std::min(next, range.end)}));
    at = next;
  }
  return {};
}

Result<void> ImageEditor::allocate(GuestRange range) {
  return place(range, false);
}

Result<void> ImageEditor::reserve(GuestRange range) {
  return place(range, true);
}

GuestOffset ImageEditor::end_of_table(GuestOffset offset) const {
  return {(geometry_.l1_index(offset) + 1) * geometry_.l2_coverage()};
}

Result<void> ImageEditor::place(GuestRange range, bool as_zeros) {
  for (GuestOffset at = range.begin; at < range.end;) {
    TRY(open_table(at));
    const GuestOffset next{align_down(at.value, cluster_size()) + cluster_size()};
    const GuestOffset end{align_down(std::min(range.end, end_of_table(at)).value, cluster_size())};
    if (table_->is_new && is_aligned(at.value, cluster_size()) && end > at) {
      TRY(place_whole_clusters({at, end}, as_zeros));
      at = end;
    } else {
      TRY(place_in_cluster({at, std::min(next, range.end)}, as_zeros));
      at = next;
    }
  }
  return {};
}

// Ranges come in ascending order: the entries are empty yet.
Result<void> ImageEditor::place_whole_clusters(GuestRange range, bool as_zeros) {
  const bool is_extended = geometry_.subclusters_per_cluster() > 1;
  const std::uint64_t flags = copied_flag | (as_zeros && !is_extended ? qcow2::zero_flag : 0);
  const std::uint64_t all = ~std::uint32_t{0};
  std::uint64_t index = geometry_.l2_index(range.begin);
  const std::uint64_t end = index + (range.size() >> geometry_.cluster_bits());
  while (index < end) {
    const HostRange clusters = TRY(take_clusters(end - index));
    const std::uint64_t count = clusters.size() >> geometry_.cluster_bits();
    added_.data += count;
    TRY(append_data(clusters));
    // Nobody looks at a table that is only counted.
    for (std::uint64_t i = 0; i < count && !transaction_.counts_fresh(); ++i) {
      set_entry(index + i, 0, (clusters.begin + (i << geometry_.cluster_bits())).value | flags);
      if (is_extended)
        set_entry(index + i, 1, as_zeros ? all << 32 : all);
    }
    index += count;
  }
  return {};
}

Result<void> ImageEditor::set_zero(GuestRange range) {
  return for_each_cluster(range, [&](GuestRange part) -> Result<void> {
    set_zero_in_cluster(part);
    return {};
  });
}

Result<void> ImageEditor::overwrite(GuestRange range) {
  return for_each_cluster(range, [&](GuestRange part) { return add_data(part, part.size()); });
}

Result<void> ImageEditor::turn_to(const qcow2::Snapshot& snapshot) {
  TRY(close_table());
  TRY(stage_l1_entries());
  l1_entries_.clear();
  l1_at_ = {snapshot.l1_table_offset};
  l1_size_ = snapshot.l1_size;
  is_snapshot_ = true;
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
  if (is_snapshot_)
    TRY(stage_copied_flags());
  return is_table_fresh() ? stage_table() : stage_table_entries();
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
