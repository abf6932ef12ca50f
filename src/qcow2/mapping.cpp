// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <optional>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/mapping.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

// Collects runs and merges each with the last where it continues it.
class RunBuilder {
 public:
  RunBuilder(GuestRange window, std::vector<Run>& runs)
      : window_(window), runs_(&runs), first_(runs.size()) {}

  // `begin` and `end` may reach out of the window; `host` is where `begin` lies.
  void add(std::uint64_t begin, std::uint64_t end, RunKind kind, HostOffset host,
           Unreadable unreadable = Unreadable::no) {
    if (begin < window_.begin.value) {
      host = host + (window_.begin.value - begin);
      begin = window_.begin.value;
    }
    end = std::min(end, window_.end.value);
    if (begin >= end)
      return;
    if (runs_->size() > first_) {
      Run& last = runs_->back();
      if (last.kind == kind && last.unreadable == unreadable &&
          (!has_host(kind) || last.host.value + last.guest.size() == host.value)) {
        last.guest.end = {end};
        return;
      }
    }
    runs_->push_back({{{begin}, {end}}, has_host(kind) ? host : HostOffset{}, kind, unreadable});
  }

 private:
  GuestRange window_;
  std::vector<Run>* runs_;
  std::size_t first_;
};

namespace {

// What one L2 entry says of its cluster as a whole; with subclusters, the bitmap has the last word.
struct ClusterState {
  RunKind kind{};
  HostOffset host;
  Unreadable unreadable = Unreadable::no;
};

// Why an entry cannot be read on, or nothing. QEMU block/qcow2-cluster.c: qcow2_get_host_offset.
const char* objection(const MappingRules& rules, L2Entry entry, GuestOffset guest) {
  if (entry.is_compressed())
    return rules.has_data_file ? "compressed cluster in an image with an external data file"
                               : nullptr;
  const Geometry& geometry = rules.geometry;
  const bool subclusters = geometry.subclusters_per_cluster() > 1;
  if (!subclusters && entry.reads_as_zero() && !rules.allows_zero_flag)
    return "zero cluster in a version 2 image";
  const bool is_plain_zero = !subclusters && entry.reads_as_zero();
  const bool present = entry.host_offset().value != 0 ||
                       (rules.has_data_file && entry.is_copied() && !is_plain_zero);
  if (!present)
    return nullptr;
  if (!is_aligned(entry.host_offset().value, geometry.cluster_size()))
    return "host cluster offset is not aligned to a cluster";
  const std::uint64_t cluster_begin = align_down(guest.value, geometry.cluster_size());
  if (rules.has_data_file && entry.host_offset().value != cluster_begin)
    return "external data file: host offset differs from guest offset";
  return nullptr;
}

ClusterState classify(const MappingRules& rules, L2Entry entry) {
  if (entry.is_compressed())
    return {RunKind::compressed,
            {},
            state_of(entry.compressed_extent(rules.geometry.cluster_bits()), rules.stream_end)};
  const HostOffset host = entry.host_offset();
  const bool subclusters = rules.geometry.subclusters_per_cluster() > 1;
  if (!subclusters && entry.reads_as_zero())
    return {host.value != 0 ? RunKind::zero_reserved : RunKind::zero, host};
  // qcow2.rst, "Standard Cluster Descriptor": offset 0 is a place only in an external data file.
  if (host.value != 0 || (rules.has_data_file && entry.is_copied()))
    return {RunKind::data, host};
  return {RunKind::unallocated, {}};
}

bool contradicts_itself(ClusterState cluster, SubclusterBitmap bitmap) {
  if (cluster.kind == RunKind::data)
    return (bitmap.allocated() & bitmap.zero()) != 0;
  return cluster.kind == RunKind::unallocated && bitmap.allocated() != 0;
}

RunKind subcluster_kind(ClusterState cluster, SubclusterBitmap bitmap, unsigned index) {
  if (cluster.kind == RunKind::compressed)
    return RunKind::compressed;
  const bool zero = (bitmap.zero() >> index & 1) != 0;
  if (cluster.kind == RunKind::unallocated)
    return zero ? RunKind::zero : RunKind::unallocated;
  if (zero)
    return RunKind::zero_reserved;
  return (bitmap.allocated() >> index & 1) != 0 ? RunKind::data : RunKind::reserved;
}

// How many subclusters from `index` on are of the same kind: their allocated and zero bits equal.
unsigned same_subclusters(SubclusterBitmap bitmap, unsigned index) {
  const auto flip = [index](std::uint32_t bits) { return (bits >> index & 1) != 0 ? ~bits : bits; };
  const std::uint32_t differing = flip(bitmap.allocated()) | flip(bitmap.zero());
  const std::uint32_t ahead = differing >> index;
  return ahead == 0 ? 32 - index : static_cast<unsigned>(std::countr_zero(ahead));
}

// The first offset at or after `from` for which there is an L2 table; `limit` if none is below it.
GuestOffset next_table(const std::vector<be64>& l1, const Geometry& geometry, GuestOffset from,
                       GuestOffset limit) {
  for (std::uint64_t index = geometry.l1_index(from); index < l1.size(); ++index) {
    const GuestOffset begin = std::max(from, GuestOffset{index * geometry.l2_coverage()});
    if (begin >= limit)
      break;
    if (L1Entry(l1[index].get()).has_l2_table())
      return begin;
  }
  return limit;
}

Error entry_error(std::uint64_t l1_index, HostOffset l2_table, std::uint64_t l2_index,
                  const char* what) {
  return {ErrorCode::corrupt, fmt::format("L2 table at {:#x} (L1 entry {}), entry {}: {}",
                                          l2_table.value, l1_index, l2_index, what)};
}

// The hot loop of standard entries.
void add_standard(const MappingRules& rules, const be64* entries, std::uint64_t count,
                  std::uint64_t guest, RunBuilder& builder) {
  const std::uint64_t cluster_size = rules.geometry.cluster_size();
  std::uint64_t i = 0;
  while (i < count) {
    const std::uint64_t raw = entries[i].get();
    const L2Entry entry(raw);
    if (objection(rules, entry, {guest + i * cluster_size}) != nullptr) {
      builder.add(guest + i * cluster_size, guest + (i + 1) * cluster_size, RunKind::unknown, {},
                  Unreadable::entry);
      ++i;
      continue;
    }
    const ClusterState state = classify(rules, entry);
    std::uint64_t next = i + 1;
    // Long stretches of nothing, and of clusters that lie one after the other, are the common case:
    // comparing whole entries finds their end without looking into them.
    if (state.kind == RunKind::data) {
      // The offset field may not overflow into the reserved bits above it.
      const std::uint64_t room = (offset_mask - state.host.value) / cluster_size;
      const std::uint64_t stop = std::min(count, next + room);
      std::uint64_t expected = raw + cluster_size;
      while (next < stop && entries[next].get() == expected) {
        ++next;
        expected += cluster_size;
      }
    } else {
      const be64 same = entries[i];
      while (next < count && entries[next].get() == same.get())
        ++next;
      if (state.kind == RunKind::zero_reserved)
        next = i + 1;  // equal entries would be one host cluster twice, not a run
    }
    builder.add(guest + i * cluster_size, guest + next * cluster_size, state.kind, state.host,
                state.unreadable);
    i = next;
  }
}

void add_extended(const MappingRules& rules, const be64* entries, std::uint64_t count,
                  std::uint64_t guest, RunBuilder& builder) {
  const Geometry& geometry = rules.geometry;
  for (std::uint64_t i = 0; i < count; ++i, guest += geometry.cluster_size()) {
    const L2Entry entry(entries[2 * i].get());
    const SubclusterBitmap bitmap(entries[2 * i + 1].get());
    const ClusterState state = classify(rules, entry);
    if (objection(rules, entry, {guest}) != nullptr || contradicts_itself(state, bitmap)) {
      builder.add(guest, guest + geometry.cluster_size(), RunKind::unknown, {}, Unreadable::entry);
      continue;
    }
    if (state.kind == RunKind::compressed) {
      builder.add(guest, guest + geometry.cluster_size(), state.kind, {}, state.unreadable);
      continue;
    }
    for (unsigned index = 0; index < 32;) {
      const unsigned same = same_subclusters(bitmap, index);
      const std::uint64_t in_cluster = index * geometry.subcluster_size();
      builder.add(guest + in_cluster, guest + in_cluster + same * geometry.subcluster_size(),
                  subcluster_kind(state, bitmap, index), state.host + in_cluster);
      index += same;
    }
  }
}

}  // namespace

Unreadable state_of(CompressedExtent stream, std::uint64_t file_size) {
  const std::uint64_t end = stream.begin.value + stream.max_bytes;
  const std::uint64_t last_sector = std::max(stream.begin.value, end - compressed_sector_size);
  if (file_size <= last_sector)
    return Unreadable::past_end;
  return file_size < end ? Unreadable::undecided : Unreadable::no;
}

Result<HostOffset> Mapping::table_of(std::uint64_t l1_index) const {
  const HostOffset l2_table = L1Entry(l1()[l1_index].get()).l2_table();
  const Geometry& geometry = rules_.geometry;
  if (l1()[l1_index].get() == unread_l1_entry)
    return fail(ErrorCode::io_error, fmt::format("L1 entry {} cannot be read", l1_index));
  if (!is_aligned(l2_table.value, geometry.cluster_size()))
    return fail(ErrorCode::corrupt,
                fmt::format("L1 entry {}: L2 table offset {:#x} is not aligned to a cluster",
                            l1_index, l2_table.value));
  return l2_table;
}

Result<void> Mapping::read_entries(std::uint64_t l1_index, std::uint64_t first, std::uint64_t count,
                                   Cursor& cursor) const {
  const HostOffset l2_table = TRY(table_of(l1_index));
  const Geometry& geometry = rules_.geometry;
  cursor.table.resize(count * geometry.l2_entry_bytes() / sizeof(be64));
  return io::read_exactly(*file_, l2_table + first * geometry.l2_entry_bytes(),
                          writable_bytes_of(cursor.table),
                          fmt::format("L2 table of L1 entry {}", l1_index));
}

void Mapping::runs(GuestRange window, Cursor& cursor, std::vector<Run>& runs) const {
  const Geometry& geometry = rules_.geometry;
  const bool extended = geometry.subclusters_per_cluster() > 1;
  const std::uint64_t end = std::min(window.end.value, guest_size_);
  RunBuilder builder({window.begin, {end}}, runs);
  std::uint64_t guest = window.begin.value;
  while (guest < end) {
    const GuestOffset described = next_table(l1(), geometry, {guest}, {end});
    if (described.value > guest) {
      builder.add(guest, described.value, RunKind::unallocated, {});
      guest = described.value;
      continue;
    }
    const std::uint64_t l1_index = geometry.l1_index({guest});
    const std::uint64_t table_end = std::min(end, (l1_index + 1) * geometry.l2_coverage());
    const std::uint64_t first = geometry.l2_index({guest});
    const std::uint64_t count = geometry.l2_index({table_end - 1}) - first + 1;
    if (read_entries(l1_index, first, count, cursor))
      (extended ? add_extended : add_standard)(rules_, cursor.table.data(), count,
                                               align_down(guest, geometry.cluster_size()), builder);
    else
      add_readable_parts(l1_index, {{guest}, {table_end}}, cursor, builder);
    guest = table_end;
  }
}

void Mapping::add_readable_parts(std::uint64_t l1_index, GuestRange guest, Cursor& cursor,
                                 RunBuilder& builder) const {
  constexpr std::uint64_t part_bytes = 4096;
  const Geometry& geometry = rules_.geometry;
  const Result<HostOffset> table = table_of(l1_index);
  if (!table)
    return builder.add(guest.begin.value, guest.end.value, RunKind::unknown, {}, Unreadable::table);
  const std::uint64_t per_part = part_bytes / geometry.l2_entry_bytes();
  const std::uint64_t present =
      (file_->size() - std::min(file_->size(), table->value)) / geometry.l2_entry_bytes();
  for (GuestRange part = guest; part.begin < guest.end; part.begin = part.end) {
    const std::uint64_t first = geometry.l2_index(part.begin);
    if (first >= present)
      return builder.add(part.begin.value, guest.end.value, RunKind::unknown, {},
                         Unreadable::table);
    const std::uint64_t clusters =
        std::min(align_down(first, per_part) + per_part, present) - first;
    const std::uint64_t begin = align_down(part.begin.value, geometry.cluster_size());
    part.end = std::min(guest.end, GuestOffset{begin + clusters * geometry.cluster_size()});
    const std::uint64_t count = geometry.l2_index({part.end.value - 1}) - first + 1;
    if (read_entries(l1_index, first, count, cursor))
      (geometry.subclusters_per_cluster() > 1 ? add_extended : add_standard)(
          rules_, cursor.table.data(), count, begin, builder);
    else
      builder.add(part.begin.value, part.end.value, RunKind::unknown, {}, Unreadable::table);
  }
}

Result<Location> Mapping::locate(GuestOffset offset, Cursor& cursor) const {
  const Geometry& geometry = rules_.geometry;
  const std::uint64_t in_cluster = geometry.in_cluster(offset.value);
  Location location;
  location.cluster_begin = {offset.value - in_cluster};
  location.length = geometry.cluster_size() - in_cluster;
  const std::uint64_t l1_index = geometry.l1_index(offset);
  if (l1_index >= l1().size() || !L1Entry(l1()[l1_index].get()).has_l2_table())
    return location;
  const std::uint64_t l2_index = geometry.l2_index(offset);
  TRY(read_entries(l1_index, l2_index, 1, cursor));
  const L2Entry entry(cursor.table[0].get());
  const ClusterState state = classify(rules_, entry);
  const char* what = objection(rules_, entry, offset);
  location.kind = state.kind;
  if (geometry.subclusters_per_cluster() > 1 && state.kind != RunKind::compressed) {
    const SubclusterBitmap bitmap(cursor.table[1].get());
    if (what == nullptr && contradicts_itself(state, bitmap))
      what = "subcluster bitmap contradicts itself";
    const auto index = static_cast<unsigned>(in_cluster / geometry.subcluster_size());
    location.kind = subcluster_kind(state, bitmap, index);
    location.length =
        (index + same_subclusters(bitmap, index)) * geometry.subcluster_size() - in_cluster;
  }
  if (what != nullptr)
    return fail(entry_error(l1_index, L1Entry(l1()[l1_index].get()).l2_table(), l2_index, what));
  if (has_host(location.kind))
    location.host = state.host + in_cluster;
  if (location.kind == RunKind::compressed) {
    location.compressed = entry.compressed_extent(geometry.cluster_bits());
    location.unreadable = state.unreadable;
  }
  if (location.kind == RunKind::data && location.host.value >= rules_.data_end)
    location.unreadable = Unreadable::past_end;
  else if (location.kind == RunKind::data)
    location.length = std::min(location.length, rules_.data_end - location.host.value);
  return location;
}

GuestOffset Mapping::next_described(GuestOffset from, GuestOffset limit) const {
  const Geometry& geometry = rules_.geometry;
  while (from < limit) {
    from = next_table(l1(), geometry, from, limit);
    if (from >= limit)
      break;
    const std::uint64_t index = geometry.l1_index(from);
    from = skip_hole(index, from);
    if (geometry.l1_index(from) == index)
      break;
  }
  return std::min(from, limit);
}

GuestOffset Mapping::end_without_tables(GuestOffset from) const {
  const std::uint64_t coverage = rules_.geometry.l2_coverage();
  for (std::uint64_t index = rules_.geometry.l1_index(from); index < l1().size(); ++index) {
    if (L1Entry(l1()[index].get()).has_l2_table()) {
      const Result<HostOffset> table = table_of(index);
      if (!table || table->value >= file_->size()) {
        from = std::min(GuestOffset{guest_size_}, GuestOffset{(index + 1) * coverage});
        continue;
      }
    }
    break;
  }
  return from;
}

GuestOffset Mapping::skip_hole(std::uint64_t l1_index, GuestOffset from) const {
  constexpr std::uint64_t worth_asking = 16 << 10;  // smaller tables are read as fast
  const Geometry& geometry = rules_.geometry;
  const HostRange table{L1Entry(l1()[l1_index].get()).l2_table(),
                        L1Entry(l1()[l1_index].get()).l2_table() + geometry.cluster_size()};
  if (geometry.cluster_size() < worth_asking || table.end.value > file_->size() ||
      !is_aligned(table.begin.value, geometry.cluster_size()))
    return from;
  const HostOffset entry = table.begin + geometry.l2_index(from) * geometry.l2_entry_bytes();
  const Result<HostOffset> data = file_->next_data(entry);
  if (!data || *data <= entry)
    return from;
  const std::uint64_t index =
      (std::min(*data, table.end) - table.begin) / geometry.l2_entry_bytes();
  return std::max(from,
                  GuestOffset{l1_index * geometry.l2_coverage() + index * geometry.cluster_size()});
}

}  // namespace coldchain::qcow2
