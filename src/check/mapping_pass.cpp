// SPDX-License-Identifier: MIT
// Tests every L1 table, active and of snapshots, and the L2 tables that they name: alignment,
// reserved bits, references past the end, subcluster bitmaps, the copied flags of the active
// mapping against the stored refcounts. QEMU block/qcow2-refcount.c: check_refcounts_l1,
// check_refcounts_l2, check_oflag_copied.
// Gathers the claims of these tables and of all guest data, and the counts of allocated, fragmented
// and compressed clusters.
//
// An L2 table is read once, however many L1 entries name it, and what it names is claimed as often
// as it is named. Where a table that is named again is damaged, it is looked at again, so that each
// reference has its findings, as in qemu-img.
#include "compressed_streams.hpp"
#include "table_scan.hpp"

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <unordered_set>

#include <coldchain/base/parallel.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Finding;
using finding::Structure;
using qcow2::L2Entry;

// Small tables are worked on in batches: handing one over costs more than reading it.
constexpr std::size_t l2_batch_bytes = 256 << 10;

// So much of damaged tables that are named again is looked at again; then they are only counted.
constexpr std::uint64_t most_again_bytes = 16 << 20;

class MappingWalk {
 public:
  MappingWalk(Survey& survey, std::size_t l1_tables)
      : survey_(survey), streams_(survey.image, l1_tables) {}

  // A finding that comes between two tables.
  void add_finding(Finding finding) {
    starts_.push_back({.reference = references_.size(), .finding = std::move(finding)});
  }

  void add_table(const Survey::L1Table& l1) {
    const auto& [offset, entries, is_active, index, disk_size] = l1;
    if (entries == 0)
      return;
    if (offset >= 1ULL << 63)
      survey_.fail_as_qemu("Input/output error");  // its offsets are signed
    const std::uint64_t bytes = std::uint64_t{entries} * sizeof(be64);
    const Structure structure = is_active ? Structure::l1_table : Structure::snapshot_l1_table;
    starts_.push_back({references_.size(), offset, bytes, structure, index, std::nullopt});
    if (const Result<void> done = read_l1(l1); !done) {
      survey_.result.findings.add({.code = Code::table_unreadable,
                                   .detail = done.error().message,
                                   .structure = structure,
                                   .index = index});
    }
    const HostOffset end_of_file{survey_.file.size()};
    if (HostOffset{offset + bytes} > end_of_file && !survey_.reaches_past_end(offset, bytes))
      note_lost_part({std::max(end_of_file, HostOffset{offset}), {offset + bytes}}, l1,
                     Code::table_past_end, {});
  }

  void walk() {
    count_references();
    skip_what_is_not_honest();
    std::size_t next = 0;
    using Scans = std::vector<TableScan>;
    OrderedPipeline<Batch, Scans> pipeline(
        [&]() -> std::optional<Batch> {
          if (next == references_.size())
            return std::nullopt;
          const Batch batch{next, std::min(references_.size(), next + tables_per_batch())};
          next = batch.end;
          return batch;
        },
        [this](const Batch& batch, unsigned) -> Result<Scans> {
          Scans scans(batch.end - batch.begin);
          std::vector<be64> table;
          for (std::size_t i = batch.begin; i < batch.end; ++i) {
            if (references_[i].is_first)
              scan(references_[i], table, scans[i - batch.begin]);
          }
          return scans;
        },
        survey_.options.workers);
    std::size_t taken = 0;
    auto start = starts_.begin();
    const auto claim_l1_tables = [&] {
      for (; start != starts_.end() && start->reference == taken; ++start) {
        if (start->finding)
          survey_.corruption(std::move(*start->finding));
        else
          survey_.claim(start->offset, start->bytes, start->structure, start->index);
      }
    };
    tell_progress(0);
    // The workers report no errors: what cannot be read is a finding.
    (void)pipeline.run([&](Scans scans) -> Result<void> {
      for (TableScan& scan : scans) {
        claim_l1_tables();
        take(references_[taken++], scan);
        tell_progress(taken);
      }
      return {};
    });
    claim_l1_tables();
  }

 private:
  struct Batch {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  // An L1 table or a finding, and how many references came before.
  struct Start {
    std::size_t reference = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    Structure structure{};
    std::uint64_t index = 0;
    std::optional<Finding> finding{};
  };

  void tell_progress(std::size_t tables) const {
    const std::uint64_t table_bytes = survey_.geometry.cluster_size();
    if (survey_.options.progress)
      (void)survey_.options.progress(
          {.done = tables * table_bytes, .total = references_.size() * table_bytes});
  }

  [[nodiscard]] std::size_t tables_per_batch() const {
    // Very many are mostly empty.
    constexpr std::size_t most_batches = 4096;
    return std::max({std::size_t{1}, std::size_t{l2_batch_bytes / survey_.geometry.cluster_size()},
                     references_.size() / most_batches});
  }

  Result<void> read_l1(const Survey::L1Table& l1) {
    return survey_.for_each_entry(
        {l1.offset}, l1.entries * sizeof(be64), l1_ranges_, "L1 tables",
        [&](const io::Unread& unread) { note_unread(unread, l1); },
        [&](std::uint64_t raw, std::uint64_t entry) {
          Reference reference;
          reference.raw = raw;
          reference.l1_index = static_cast<std::uint32_t>(entry);
          reference.is_active = l1.is_active;
          reference.disk_size = l1.disk_size;
          reference.has_copied_flags =
              l1.is_active && reference.l2_table() != 0 &&
              survey_.stored.is_one(survey_.cluster_of(reference.l2_table())).has_value();
          reference.entry_at = {l1.offset + entry * sizeof(be64)};
          references_.push_back(reference);
        });
  }

  void note_unread(const io::Unread& unread, const Survey::L1Table& l1) {
    std::vector<HostRange> ranges = unread.ranges;
    if (ranges.empty())
      ranges.push_back({{l1.offset}, {l1.offset + l1.entries * sizeof(be64)}});
    for (const HostRange& range : ranges)
      note_lost_part(range, l1, Code::table_unreadable, unread.error->message);
  }

  // With the guest range that the part describes.
  void note_lost_part(HostRange part, const Survey::L1Table& l1, Code code, std::string detail) {
    const std::uint64_t coverage = survey_.geometry.l2_coverage();
    const std::uint64_t first = (part.begin.value - l1.offset) / sizeof(be64);
    const std::uint64_t end = divide_up(part.end.value - l1.offset, sizeof(be64));
    const auto guest_of = [&](std::uint64_t entry) {
      return GuestOffset{std::min(l1.disk_size, checked_mul(entry, coverage).value_or(~0ULL))};
    };
    survey_.result.findings.add(
        {.code = code,
         .detail = std::move(detail),
         .structure = l1.is_active ? Structure::l1_table : Structure::snapshot_l1_table,
         .index = l1.is_active ? first : l1.index,
         .host = part,
         .guest = {guest_of(first), guest_of(end)}});
  }

  void count_references() {
    std::unordered_map<std::uint64_t, std::size_t> first;
    for (std::size_t i = 0; i < references_.size(); ++i) {
      const auto [place, is_new] = first.try_emplace(references_[i].l2_table(), i);
      references_[i].is_first = is_new;
      if (!is_new)
        ++references_[place->second].times;
    }
  }

  // Tables that do not lie on cluster boundaries can overlap without end.
  void skip_what_is_not_honest() {
    const std::uint64_t most = survey_.most_repeated_bytes();
    const std::uint64_t cluster_size = survey_.geometry.cluster_size();
    std::uint64_t bytes = 0;
    for (Reference& reference : references_) {
      reference.is_skipped = reference.l2_table() >= survey_.file_size;
      if (!reference.is_first || reference.is_skipped ||
          is_aligned(reference.l2_table(), cluster_size))
        continue;
      bytes += cluster_size;
      reference.is_skipped = bytes > most;
    }
    if (bytes > most)
      survey_.note_not_walked(
          fmt::format("L2 tables of more than {} bytes that are not aligned to a cluster", most));
  }

  // Only where a table of zeros was seen before: to ask for a hole takes as long as to read a part
  // of a table.
  [[nodiscard]] bool is_in_hole(const Reference& reference) const {
    return has_empty_tables_ && survey_.is_in_hole({reference.l2_table()});
  }

  void scan(const Reference& reference, std::vector<be64>& table, TableScan& scan) const {
    if (reference.is_skipped)
      return;
    scan.counts.is_empty = is_in_hole(reference);
    if (scan.counts.is_empty)
      return;
    table.resize(survey_.geometry.cluster_size() / sizeof(be64));
    const io::Unread unread =
        io::read_table_parts(survey_.file, {reference.l2_table()}, writable_bytes_of(table));
    if (unread.error)
      add_unread(unread, reference, scan);
    add_what_is_cut(reference, table, scan);
    scan.counts.is_empty =
        !scan.counts.is_unreadable &&
        std::all_of(table.begin(), table.end(), [](const be64& raw) { return raw.get() == 0; });
    if (scan.counts.is_empty)
      has_empty_tables_ = true;
    else
      scan_table(survey_, reference, table, scan);
  }

  // All of the table, where a second attempt read it.
  void add_unread(const io::Unread& unread, const Reference& reference, TableScan& scan) const {
    const HostOffset table{reference.l2_table()};
    const HostRange whole{table, table + survey_.geometry.cluster_size()};
    for (const HostRange& part : unread.ranges.empty() ? std::vector{whole} : unread.ranges)
      add_lost_part(part, reference, scan, Code::table_unreadable, unread.error->message);
  }

  // Entries behind the end of the guest's disk are no loss. A part of an entry says nothing.
  void add_what_is_cut(const Reference& reference, std::vector<be64>& entries,
                       TableScan& scan) const {
    const std::uint64_t table = reference.l2_table();
    const std::uint64_t entry_bytes = survey_.geometry.l2_entry_bytes();
    const std::uint64_t present =
        (survey_.file.size() - std::min(survey_.file.size(), table)) / entry_bytes;
    if (present >= survey_.geometry.l2_entries())
      return;
    std::fill(entries.begin() + static_cast<std::ptrdiff_t>(present * entry_bytes / sizeof(be64)),
              entries.end(), be64());
    const std::uint64_t first_cluster = reference.l1_index * survey_.geometry.l2_entries();
    const std::uint64_t disk_clusters =
        divide_up(reference.disk_size, survey_.geometry.cluster_size());
    const std::uint64_t needed = std::min(survey_.geometry.l2_entries(),
                                          disk_clusters - std::min(disk_clusters, first_cluster));
    if (present < needed && !survey_.reaches_past_end(table, survey_.geometry.cluster_size()))
      add_lost_part({{table + present * entry_bytes}, {table + needed * entry_bytes}}, reference,
                    scan, Code::table_past_end, {});
  }

  // With the guest range that the part describes.
  void add_lost_part(HostRange part, const Reference& reference, TableScan& scan, Code code,
                     std::string detail) const {
    const std::uint64_t entry_bytes = survey_.geometry.l2_entry_bytes();
    const std::uint64_t first = reference.l1_index * survey_.geometry.l2_entries() +
                                (part.begin - HostOffset{reference.l2_table()}) / entry_bytes;
    const std::uint64_t end = first + part.size() / entry_bytes;
    scan.counts.is_unreadable = true;
    scan.findings.add({.code = code,
                       .detail = std::move(detail),
                       .structure = reference.l2_structure(),
                       .index = first,
                       .host = part,
                       .guest = {{first * survey_.geometry.cluster_size()},
                                 {end * survey_.geometry.cluster_size()}}});
  }

  void take(const Reference& reference, TableScan& scan) {
    look_at_entry(reference);
    if (reference.is_first) {
      std::size_t told = 0;
      for (const ClusterRun& run : scan.claims) {
        for (; told < run.findings_before; ++told)
          survey_.result.findings.add(scan.findings.runs()[told]);
        claim(run, reference);
      }
      for (; told < scan.findings.runs().size(); ++told)
        survey_.result.findings.add(scan.findings.runs()[told]);
      survey_.result.findings.omit_all(scan.findings);
      decompress(scan.compressed_entries, reference);
      scan.claims = {};
      scan.compressed_entries = {};
      count(scan, reference);
      if (scan.counts.is_empty)
        tell_empty(reference);
      if (reference.times > 1)
        repeated_.emplace(reference.l2_table(), scan.counts);
      return;
    }
    // Damage is told of again for each reference, as long as that is little work.
    const TableCounts& known = repeated_.at(reference.l2_table());
    again_bytes_ += known.is_damaged() ? survey_.geometry.cluster_size() : 0;
    if (known.is_damaged() && again_bytes_ <= most_again_bytes) {
      std::vector<be64> table;
      this->scan(reference, table, scan);
      survey_.result.findings.add_all(scan.findings);
      count(scan, reference);
    } else {
      survey_.result.findings.omit(known.corruptions);
      count(known, reference);
    }
  }

  // A write that was lost leaves such a table; so does a guest that discards all of its range.
  void tell_empty(const Reference& reference) {
    const std::uint64_t coverage = survey_.geometry.l2_coverage();
    survey_.result.findings.add(
        {.code = Code::l2_table_empty,
         .structure = reference.l2_structure(),
         .index = reference.l1_index * survey_.geometry.l2_entries(),
         .host = {{reference.l2_table()}, {reference.l2_table() + survey_.geometry.cluster_size()}},
         .guest = {{reference.l1_index * coverage}, {(reference.l1_index + 1ULL) * coverage}}});
  }

  // Decompressing takes far longer than reading the tables: it is spread over all workers, whether
  // there are many tables or one.
  void decompress(const std::vector<CompressedEntry>& entries, const Reference& reference) {
    constexpr std::size_t per_task = 64;
    const std::vector<std::uint64_t> streams = streams_.choose(entries);
    std::vector<std::string> errors(streams.size());  // empty where a stream is sound
    parallel_for(divide_up(streams.size(), per_task), survey_.options.workers,
                 [&](std::size_t task) {
                   Bytes stream;
                   Bytes cluster(survey_.geometry.cluster_size());
                   const std::size_t end = std::min(streams.size(), (task + 1) * per_task);
                   for (std::size_t i = task * per_task; i < end; ++i) {
                     const L2Entry entry(streams[i]);
                     const Result<void> done = survey_.image.decompress(
                         entry.compressed_extent(survey_.geometry.cluster_bits()), stream, cluster);
                     if (!done)
                       errors[i] = done.error().message;
                   }
                 });
    std::unordered_map<std::uint64_t, const std::string*> bad;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (errors[i].empty())
        streams_.note_sound(streams[i]);
      else
        bad.emplace(streams[i], &errors[i]);
    }
    for (const CompressedEntry& entry : entries) {
      const auto found = bad.find(CompressedStreams::stream_of(entry.raw));
      if (found == bad.end())
        continue;
      const qcow2::CompressedExtent stream =
          L2Entry(entry.raw).compressed_extent(survey_.geometry.cluster_bits());
      const bool is_cut =
          qcow2::state_of(stream, survey_.file.size()) == qcow2::Unreadable::undecided;
      Finding finding = is_cut ? cut_stream_finding(survey_, reference, entry.index, entry.raw)
                               : entry_finding(survey_, reference, Code::compressed_data_bad,
                                               entry.index, entry.raw);
      finding.detail = *found->second;
      survey_.result.findings.add(std::move(finding));
    }
    if (const std::optional<std::uint64_t> most = streams_.exceeded())
      survey_.note_not_walked(fmt::format(
          "compressed clusters whose streams need more than the file's {} bytes", *most));
  }

  void claim(const ClusterRun& run, const Reference& reference) {
    survey_.claim_clusters(
        run.first, run.count,
        run.is_compressed ? Structure::compressed_cluster : Structure::data_cluster, run.first,
        reference.times);
    if (run.is_compressed)
      survey_.result.compressed.add(run.first, run.count);
  }

  void count(const TableScan& scan, const Reference& reference) {
    survey_.copied.add_all(scan.copied);
    count(scan.counts, reference);
  }

  void count(const TableCounts& table, const Reference& reference) {
    Counts& counts = survey_.result.counts;
    counts.corruptions += table.corruptions;
    if (!reference.is_active)
      return;
    survey_.copied_count += table.copied;
    counts.allocated_clusters += table.allocated;
    counts.fragmented_clusters += table.fragmented;
    counts.compressed_clusters += table.compressed;
  }

  // The L1 entry itself, and the claim of the table that it names.
  void look_at_entry(const Reference& reference) {
    const std::uint64_t l2_table = reference.l2_table();
    const std::uint64_t coverage = survey_.geometry.l2_coverage();
    const HostRange at{reference.entry_at, reference.entry_at + sizeof(be64)};
    const auto finding = [&](Code code) {
      return Finding{
          .code = code,
          .structure = reference.l1_structure(),
          .index = reference.l1_index,
          .host = at,
          .guest = {{reference.l1_index * coverage}, {(reference.l1_index + 1ULL) * coverage}},
          .entry = reference.raw};
    };
    if ((reference.raw & qcow2::l1_reserved_mask) != 0)
      survey_.corruption(finding(Code::l1_entry_reserved));
    if (survey_.reaches_past_end(l2_table, survey_.geometry.cluster_size())) {
      Finding past_end = survey_.past_end(reference.l1_structure(), reference.l1_index, at,
                                          l2_table, survey_.geometry.cluster_size());
      past_end.guest = finding(Code::reference_past_end).guest;
      survey_.corruption(std::move(past_end));
    } else if (reference.is_first) {
      survey_.claim(l2_table, survey_.geometry.cluster_size(), reference.l2_structure(),
                    reference.l1_index, reference.times);
    }
    if (!is_aligned(l2_table, survey_.geometry.cluster_size()))
      survey_.corruption(finding(Code::l2_table_unaligned));
    if (!reference.has_copied_flags)
      return;
    const std::uint64_t stored =
        survey_.stored.at(survey_.cluster_of(l2_table), cursor_).value_or(0);
    if ((stored == 1) != ((reference.raw & qcow2::copied_flag) != 0)) {
      Finding wrong = finding(Code::l1_entry_copied_wrong);
      wrong.found = stored;
      ++survey_.copied_count;
      survey_.copied.add(std::move(wrong));
    }
  }

  Survey& survey_;
  StoredRefcounts::Cursor cursor_;
  std::vector<Start> starts_;
  std::vector<Reference> references_;
  std::unordered_map<std::uint64_t, TableCounts> repeated_;  // tables that are named more than once
  WalkedRanges l1_ranges_;
  CompressedStreams streams_;
  mutable std::atomic<bool> has_empty_tables_ = false;  // set by the workers
  std::uint64_t again_bytes_ = 0;  // of damaged tables that were looked at again
};

std::uint64_t table_bytes(const std::vector<qcow2::Snapshot>& snapshots) {
  std::uint64_t bytes = 0;
  for (const qcow2::Snapshot& snapshot : snapshots)
    bytes = align_up(bytes, 8) + 40 + snapshot.extra_data.size() + snapshot.id.size() +
            snapshot.name.size();
  return bytes;
}

Finding snapshot_finding(Code code, const qcow2::Snapshot& snapshot, std::size_t index,
                         std::uint64_t entry) {
  return {.code = code,
          .detail = fmt::format("{} ({})", snapshot.id.c_str(), snapshot.name.c_str()),
          .structure = Structure::snapshot_table,
          .index = index,
          .entry = entry};
}

}  // namespace

void check_mappings(Survey& survey, const std::vector<qcow2::Snapshot>& snapshots) {
  const qcow2::Header& header = survey.image.header();
  MappingWalk walk(survey, 1 + snapshots.size());
  survey.l1_tables.push_back(
      {header.l1_table_offset, header.l1_size, true, 0, survey.image.guest_size()});
  walk.add_table(survey.l1_tables.back());
  if (header.has_data_file() && !snapshots.empty()) {
    walk.add_finding({.code = Code::snapshot_with_data_file,
                      .structure = Structure::snapshot_table,
                      .found = snapshots.size()});
  }
  for (std::size_t i = 0; i < snapshots.size(); ++i) {
    const qcow2::Snapshot& snapshot = snapshots[i];
    const std::uint64_t disk_size = snapshot.disk_size().value_or(header.size);
    if (!is_aligned(snapshot.l1_table_offset, survey.geometry.cluster_size()))
      walk.add_finding(
          snapshot_finding(Code::snapshot_l1_unaligned, snapshot, i, snapshot.l1_table_offset));
    else if (std::uint64_t{snapshot.l1_size} * sizeof(be64) > qcow2::limits::max_l1_bytes)
      walk.add_finding(
          snapshot_finding(Code::snapshot_l1_too_large, snapshot, i, snapshot.l1_size));
    else
      walk.add_table(survey.l1_tables.emplace_back(
          Survey::L1Table{snapshot.l1_table_offset, snapshot.l1_size, false, i, disk_size}));
    if (divide_up(disk_size, survey.geometry.l2_coverage()) > snapshot.l1_size)
      survey.result.findings.add(
          snapshot_finding(Code::snapshot_l1_too_small, snapshot, i, snapshot.l1_size));
  }
  walk.walk();
  survey.claim(header.snapshots_offset, table_bytes(snapshots), Structure::snapshot_table, 0);
}

}  // namespace coldchain::check
