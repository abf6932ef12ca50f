// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/snapshots.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

// The variable parts behind the fixed one, and the padding behind them.
std::size_t variable_bytes(const wire::Snapshot& fixed) {
  return std::size_t{fixed.extra_data_size.get()} + fixed.id_size.get() + fixed.name_size.get();
}

Result<void> check_extra_data(std::uint32_t size, std::size_t index) {
  if (size <= limits::max_snapshot_extra_data)
    return {};
  return fail(ErrorCode::too_large,
              fmt::format("snapshot table entry {}: extra data of {} bytes (at most {})", index,
                          size, limits::max_snapshot_extra_data));
}

}  // namespace

std::uint64_t Snapshot::vm_state_size() const {
  const auto wide = load<be64>(extra_data, 0);
  return wide ? wide->get() : vm_state_size_32;
}

std::optional<std::uint64_t> Snapshot::disk_size() const {
  const auto size = load<be64>(extra_data, 8);
  return size ? std::optional(size->get()) : std::nullopt;
}

std::optional<std::uint64_t> Snapshot::icount() const {
  const auto count = load<be64>(extra_data, 16);
  return count && count->get() != ~0ULL ? std::optional(count->get()) : std::nullopt;
}

Result<std::vector<Snapshot>> decode_snapshots(ByteView table, std::uint32_t count,
                                               SnapshotReading reading) {
  std::vector<Snapshot> snapshots;
  std::size_t offset = 0;
  const bool may_stop =
      reading == SnapshotReading::salvaging && table.size() >= limits::max_snapshot_table_bytes;
  for (std::uint32_t index = 0; index < count; ++index) {
    const auto fixed = load<wire::Snapshot>(table, offset);
    const bool is_whole =
        fixed && table.size() - offset - sizeof(wire::Snapshot) >= variable_bytes(*fixed);
    if (!is_whole && may_stop)
      return snapshots;
    if (!fixed)
      return fail(ErrorCode::corrupt,
                  fmt::format("snapshot table ends inside entry {} of {}", index, count));
    if (reading != SnapshotReading::salvaging)
      TRY(check_extra_data(fixed->extra_data_size.get(), index));
    offset += sizeof(wire::Snapshot);
    if (!is_whole)
      return fail(ErrorCode::corrupt,
                  fmt::format("snapshot table ends inside entry {} of {}", index, count));
    const auto take = [&](std::size_t size) {
      const ByteView part = table.subspan(offset, size);
      offset += size;
      return part;
    };
    Snapshot snapshot;
    snapshot.l1_table_offset = fixed->l1_table_offset.get();
    snapshot.l1_size = fixed->l1_size.get();
    snapshot.date_sec = fixed->date_sec.get();
    snapshot.date_nsec = fixed->date_nsec.get();
    snapshot.vm_clock_nsec = fixed->vm_clock_nsec.get();
    snapshot.vm_state_size_32 = fixed->vm_state_size.get();
    const ByteView extra = take(fixed->extra_data_size.get());
    snapshot.extra_data.assign(
        extra.begin(), extra.begin() + std::min<std::ptrdiff_t>(std::ssize(extra),
                                                                limits::max_snapshot_extra_data));
    snapshot.id = to_string(take(fixed->id_size.get()));
    snapshot.name = to_string(take(fixed->name_size.get()));
    snapshots.push_back(std::move(snapshot));
    offset = std::min<std::size_t>(align_up(offset, 8), table.size());
  }
  return snapshots;
}

Bytes encode_snapshots(const std::vector<Snapshot>& snapshots) {
  Bytes bytes;
  for (const Snapshot& snapshot : snapshots) {
    wire::Snapshot fixed;
    fixed.l1_table_offset = snapshot.l1_table_offset;
    fixed.l1_size = snapshot.l1_size;
    fixed.id_size = static_cast<std::uint16_t>(snapshot.id.size());
    fixed.name_size = static_cast<std::uint16_t>(snapshot.name.size());
    fixed.date_sec = snapshot.date_sec;
    fixed.date_nsec = snapshot.date_nsec;
    fixed.vm_clock_nsec = snapshot.vm_clock_nsec;
    fixed.vm_state_size = snapshot.vm_state_size_32;
    fixed.extra_data_size = static_cast<std::uint32_t>(snapshot.extra_data.size());
    append(bytes, fixed);
    bytes.insert(bytes.end(), snapshot.extra_data.begin(), snapshot.extra_data.end());
    for (const std::string* text : {&snapshot.id, &snapshot.name})
      bytes.insert(bytes.end(), text_bytes(*text).begin(), text_bytes(*text).end());
    bytes.resize(align_up(bytes.size(), 8));
  }
  return bytes;
}

Result<std::vector<Snapshot>> read_snapshots(const io::File& file, const Header& header,
                                             SnapshotReading reading) {
  if (header.nb_snapshots == 0)
    return std::vector<Snapshot>{};
  if (header.nb_snapshots > limits::max_snapshots)
    return fail(ErrorCode::too_large,
                fmt::format("Snapshot table too large ({} snapshots, at most {})",
                            header.nb_snapshots, limits::max_snapshots));
  if (!is_aligned(header.snapshots_offset, header.cluster_size()))
    return fail(ErrorCode::corrupt, fmt::format("Snapshot table offset {:#x} is not aligned to a "
                                                "cluster",
                                                header.snapshots_offset));
  // The table's length is nowhere recorded: read what its entries ask for, chunk by chunk, within
  // the limit.
  Bytes table;
  for (std::size_t wanted = 1U << 16;; wanted *= 4) {
    wanted = std::min<std::size_t>(wanted, limits::max_snapshot_table_bytes);
    table.resize(wanted);
    if (reading != SnapshotReading::strict)
      TRY(io::read_zero_extended(file, {header.snapshots_offset}, table));
    else
      table.resize(TRY(file.read_at({header.snapshots_offset}, table)));
    Result<std::vector<Snapshot>> snapshots = decode_snapshots(table, header.nb_snapshots, reading);
    const bool is_final = snapshots || snapshots.error().code == ErrorCode::too_large;
    if (is_final || table.size() < wanted || wanted == limits::max_snapshot_table_bytes)
      return snapshots;
  }
}

const Snapshot* find_snapshot(const std::vector<Snapshot>& snapshots, std::string_view id_or_name) {
  for (const auto key : {&Snapshot::id, &Snapshot::name}) {
    const auto found = std::find_if(snapshots.begin(), snapshots.end(),
                                    [&](const Snapshot& s) { return s.*key == id_or_name; });
    if (found != snapshots.end())
      return &*found;
  }
  return nullptr;
}

}  // namespace coldchain::qcow2
