// SPDX-License-Identifier: MIT
// What the header leads to: the snapshot table, the bitmaps, fields with one possible value; and in
// the end the marks that say that all is well. Each change of the header lies within one sector.
#include "mender.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Code;
using finding::Finding;
using finding::Severity;
using finding::Structure;

// QEMU block/qcow2-snapshot.c, qcow2_write_snapshots(): the extra data of every entry of a table
// that is written are the wide size of the VM state, the disk size and the instruction count, of
// which all ones mean none.
constexpr std::size_t written_extra_data = 24;
constexpr std::uint64_t no_instruction_count = ~std::uint64_t{0};

constexpr std::uint64_t version3_at = sizeof(qcow2::wire::Header);
constexpr HostOffset incompatible_at{version3_at +
                                     offsetof(qcow2::wire::HeaderVersion3, incompatible_features)};
constexpr HostOffset autoclear_at{version3_at +
                                  offsetof(qcow2::wire::HeaderVersion3, autoclear_features)};

bool has(const Mender& mender, Code code) {
  const auto& findings = mender.checked->findings.runs();
  return std::any_of(findings.begin(), findings.end(),
                     [code](const Finding& finding) { return finding.code == code; });
}

Result<bool> mend_snapshot_pointer(Mender& mender) {
  if (mender.header().nb_snapshots != 0 || !has(mender, Code::snapshot_table_unaligned))
    return false;
  const HostOffset at{offsetof(qcow2::wire::Header, snapshots_offset)};
  mender.add({.mending = Mending::clear_header_field,
              .structure = Structure::header,
              .host = {at, at + sizeof(be64)},
              .detail = "snapshots_offset, as there are no snapshots"});
  TRY(mender.transaction.stage_entry(Phase::link, at, 0));
  return true;
}

// Order: the new table in fresh clusters, its refcounts, then the two header fields at once.
Result<bool> mend_snapshot_table(Mender& mender) {
  const qcow2::Header& header = mender.header();
  if (!has(mender, Code::snapshot_entry_incomplete) && !has(mender, Code::snapshot_table_too_large))
    return false;
  Result<std::vector<qcow2::Snapshot>> snapshots =
      qcow2::read_snapshots(mender.view(), header, qcow2::SnapshotReading::salvaging);
  if (!snapshots)
    return false;  // needs a person
  // Zeros are no snapshots that only lack a field.
  std::erase_if(*snapshots, [](const qcow2::Snapshot& snapshot) {
    return snapshot.l1_table_offset == 0 || snapshot.l1_size == 0;
  });
  for (qcow2::Snapshot& snapshot : *snapshots) {
    if (snapshot.extra_data.size() >= written_extra_data)
      continue;
    const std::uint64_t vm_state_size = snapshot.vm_state_size();
    const std::uint64_t disk_size = snapshot.disk_size().value_or(header.size);
    snapshot.extra_data.clear();
    append(snapshot.extra_data, be64(vm_state_size));
    append(snapshot.extra_data, be64(disk_size));
    append(snapshot.extra_data, be64(no_instruction_count));
  }
  const Bytes table = qcow2::encode_snapshots(*snapshots);
  HostOffset at;
  if (!table.empty()) {
    const std::uint64_t clusters = divide_up(table.size(), mender.cluster_size());
    if (!mender.can_append(clusters))
      return false;
    at = TRY(mender.append_clusters(clusters));
    TRY(mender.transaction.stage(Phase::fresh, at, table));
  }
  Bytes fields;
  append(fields, be32(static_cast<std::uint32_t>(snapshots->size())));
  append(fields, be64(at.value));
  TRY(mender.transaction.stage(Phase::link, {offsetof(qcow2::wire::Header, nb_snapshots)}, fields));
  mender.add({.mending = Mending::write_snapshot_table,
              .structure = Structure::snapshot_table,
              .count = snapshots->size(),
              .host = {at, at + table.size()},
              .detail = snapshots->size() == header.nb_snapshots
                            ? ""
                            : fmt::format("{} snapshots with invalid entries are removed",
                                          header.nb_snapshots - snapshots->size())});
  return true;
}

// "All ones" says that everything there has changed: a backup takes more than it must, never less.
Result<bool> mend_bitmap_entries(Mender& mender) {
  bool has_changed = false;
  for (const Finding& finding : mender.checked->findings.runs()) {
    const bool is_bad =
        finding.code == Code::bitmap_table_entry_reserved ||
        (finding.code == Code::reference_past_end && finding.structure == Structure::bitmap_data);
    if (!is_bad || finding.host.empty())
      continue;
    for (std::uint64_t i = 0; i < finding.count; ++i) {
      const HostOffset at = finding.host.begin + i * sizeof(be64);
      if (!mender.is_alone(mender.cluster_of(at.value), Structure::bitmap_table) ||
          !mender.has_entry(at))
        continue;
      mender.add({.mending = Mending::mark_bitmap_dirty,
                  .structure = finding.structure,
                  .index = finding.index + i,
                  .host = {at, at + sizeof(be64)}});
      TRY(mender.set_entry(Phase::secure, at, 1));
      has_changed = true;
    }
  }
  return has_changed;
}

Result<void> clear_bits(Mender& mender, Phase phase, HostOffset at, std::uint64_t bits,
                        std::string detail) {
  const std::uint64_t raw = TRY(mender.entry_at(at));
  mender.add({.mending = Mending::clear_feature_bit,
              .structure = Structure::header,
              .host = {at, at + sizeof(be64)},
              .detail = std::move(detail)});
  return mender.transaction.stage_entry(phase, at, raw & ~bits);
}

// A directory or table that cannot be read makes every writer refuse the image.
Result<bool> give_up_bitmaps(Mender& mender) {
  const auto& findings = mender.checked->findings.runs();
  const bool is_bad = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    const bool is_past_end = finding.code == Code::reference_past_end &&
                             (finding.structure == Structure::bitmap_table ||
                              finding.structure == Structure::bitmap_directory);
    return finding.code == Code::bitmap_directory_bad || finding.code == Code::bitmap_table_bad ||
           is_past_end;
  });
  if (!is_bad)
    return false;
  if ((mender.header().autoclear_features & qcow2::autoclear::bitmaps) == 0)
    return false;
  const std::uint64_t raw = TRY(mender.entry_at(autoclear_at));
  mender.add({.mending = Mending::give_up_bitmaps,
              .structure = Structure::bitmap_directory,
              .host = {autoclear_at, autoclear_at + sizeof(be64)},
              .detail = "a full backup is needed"});
  TRY(mender.transaction.stage_entry(Phase::link, autoclear_at, raw & ~qcow2::autoclear::bitmaps));
  return true;
}

// Where it is the last one, an end mark takes its place; else the next writer drops it.
Result<bool> end_stale_bitmaps(Mender& mender) {
  const qcow2::Header& header = mender.header();
  const bool is_stale = (header.autoclear_features & qcow2::autoclear::bitmaps) == 0;
  if (header.extensions.empty() || !is_stale ||
      header.extensions.back().type != qcow2::extension::bitmaps)
    return false;
  std::uint64_t offset = header.header_length;
  for (std::size_t i = 0; i + 1 < header.extensions.size(); ++i) {
    const qcow2::Extension& extension = header.extensions[i];
    offset += sizeof(qcow2::wire::Extension) + extension.data.size() + extension.padding.size();
  }
  const HostOffset at{offset};
  TRY(mender.transaction.stage(Phase::link, at, bytes_of(be32(qcow2::extension::end))));
  mender.add({.mending = Mending::remove_extension,
              .structure = Structure::header_extension,
              .index = header.extensions.size() - 1,
              .host = {at, at + sizeof(be32)},
              .detail = "bitmaps that are out of date"});
  return true;
}

}  // namespace

Result<bool> mend_header_tables(Mender& mender) {
  bool has_changed = false;
  using Step = Result<bool> (*)(Mender&);
  for (const Step step :
       {Step{mend_snapshot_pointer}, Step{mend_snapshot_table}, Step{mend_bitmap_entries},
        Step{give_up_bitmaps}, Step{end_stale_bitmaps}})
    has_changed = TRY(step(mender)) || has_changed;
  return has_changed;
}

Result<bool> mend_header_bits(Mender& mender) {
  const qcow2::Header& header = mender.header();
  if (header.version < 3)
    return false;
  const auto& findings = mender.checked->findings.runs();
  const bool is_sound = mender.checked->counts.corruptions == 0 &&
                        mender.checked->counts.check_errors == 0 && !mender.checked->failure &&
                        std::all_of(findings.begin(), findings.end(), [](const Finding& finding) {
                          return finding::row(finding.code).severity < Severity::corruption ||
                                 finding.code == Code::image_corrupt_bit;
                        });
  bool has_changed = false;
  constexpr std::uint64_t marks = qcow2::incompatible::dirty | qcow2::incompatible::corrupt;
  if (is_sound && (header.incompatible_features & marks) != 0) {
    TRY(clear_bits(mender, Phase::conclude, incompatible_at, marks, "dirty and corrupt"));
    has_changed = true;
  }
  // qcow2.rst, "Header": whoever writes clears the autoclear bits that it does not know.
  constexpr std::uint64_t known = qcow2::autoclear::bitmaps | qcow2::autoclear::raw_external_data;
  if ((has_changed || !mender.transaction.is_empty()) &&
      (header.autoclear_features & ~known) != 0) {
    TRY(clear_bits(mender, Phase::announce, autoclear_at, ~known, "unknown autoclear features"));
    has_changed = true;
  }
  return has_changed;
}

}  // namespace coldchain::ops
