// SPDX-License-Identifier: MIT
// The table of internal snapshots. qcow2.rst, "Snapshots".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

struct Snapshot {
  std::uint64_t l1_table_offset = 0;
  std::uint32_t l1_size = 0;
  std::uint32_t date_sec = 0;
  std::uint32_t date_nsec = 0;
  std::uint64_t vm_clock_nsec = 0;
  std::uint32_t vm_state_size_32 = 0;
  Bytes extra_data;
  std::string id;
  std::string name;

  friend bool operator==(const Snapshot&, const Snapshot&) = default;

  // Extra data of 8, 16 and 24 bytes; where it is shorter, version 2's meaning.
  [[nodiscard]] std::uint64_t vm_state_size() const;
  [[nodiscard]] std::optional<std::uint64_t> disk_size() const;
  [[nodiscard]] std::optional<std::uint64_t> icount() const;  // nothing also where it is -1
};

// How a damaged table is read.
enum class SnapshotReading {
  strict,     // damage is an error
  as_qemu,    // as QEMU's check does: what lies past the end of the file are zeros
  salvaging,  // and, as QEMU's repair does, extra data that is too long is cut, and entries that do
              // not fit into the largest table are left out
};

[[nodiscard]] Result<std::vector<Snapshot>> decode_snapshots(
    ByteView table, std::uint32_t count, SnapshotReading reading = SnapshotReading::strict);
[[nodiscard]] Bytes encode_snapshots(const std::vector<Snapshot>& snapshots);

[[nodiscard]] Result<std::vector<Snapshot>> read_snapshots(
    const io::File& file, const Header& header, SnapshotReading reading = SnapshotReading::strict);

// By ID first, then by name, as qemu-img; null if there is none.
[[nodiscard]] const Snapshot* find_snapshot(const std::vector<Snapshot>& snapshots,
                                            std::string_view id_or_name);

}  // namespace coldchain::qcow2
