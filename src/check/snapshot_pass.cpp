// SPDX-License-Identifier: MIT
// Tests the snapshot table: its place and size, entries that lack what version 3 requires, repeated
// IDs. QEMU block/qcow2-snapshot.c: qcow2_check_read_snapshot_table.
// Gathers the snapshots, whose L1 tables the mapping pass walks, and the table's claim comes there.
#include "survey.hpp"

#include <set>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Structure;
using qcow2::Snapshot;

// What version 3 requires of the extra data: the wide size of the VM state and the disk size.
constexpr std::size_t required_extra_data = 16;

void fail_like_qemu(Survey& survey, Code code, std::string detail, std::string failure) {
  survey.result.findings.add(
      {.code = code, .detail = std::move(detail), .structure = Structure::snapshot_table});
  survey.fail_as_qemu(std::move(failure));
}

}  // namespace

std::vector<Snapshot> check_snapshot_table(Survey& survey) {
  const qcow2::Header& header = survey.image.header();
  if (header.nb_snapshots > qcow2::limits::max_snapshots) {
    fail_like_qemu(survey, Code::snapshot_table_too_large,
                   fmt::format("{} entries", header.nb_snapshots), "File too large");
    return {};
  }
  // A pointer that is not used counts, too, for QEMU. The table must end below 2^63.
  if (!is_aligned(header.snapshots_offset, header.cluster_size()) ||
      header.snapshots_offset >= (1ULL << 63) - qcow2::limits::max_snapshot_table_bytes) {
    fail_like_qemu(survey, Code::snapshot_table_unaligned,
                   fmt::format("offset {:#x}", header.snapshots_offset), "Invalid argument");
    return {};
  }
  if (header.nb_snapshots == 0)
    return {};
  Result<std::vector<Snapshot>> snapshots =
      qcow2::read_snapshots(survey.file, header, qcow2::SnapshotReading::as_qemu);
  if (!snapshots) {
    fail_like_qemu(survey, Code::snapshot_table_too_large, snapshots.error().message,
                   "File too large");
    return {};
  }
  std::set<std::string_view> ids;
  for (std::size_t i = 0; i < snapshots->size(); ++i) {
    const Snapshot& snapshot = (*snapshots)[i];
    if (header.version >= 3 && snapshot.extra_data.size() < required_extra_data)
      survey.corruption({.code = Code::snapshot_entry_incomplete,
                         .structure = Structure::snapshot_table,
                         .index = i});
    if (!ids.insert(snapshot.id).second)
      survey.result.findings.add({.code = Code::snapshot_id_repeated,
                                  .detail = snapshot.id,
                                  .structure = Structure::snapshot_table,
                                  .index = i});
  }
  return std::move(*snapshots);
}

}  // namespace coldchain::check
