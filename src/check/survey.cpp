// SPDX-License-Identifier: MIT
#include "survey.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/refcounts.hpp>

#include <fmt/format.h>

namespace coldchain::check {

using finding::Code;
using finding::Finding;
using finding::Structure;

Survey::Survey(const qcow2::Image& checked_image, StoredRefcounts stored_refcounts,
               const CheckOptions& check_options)
    : image(checked_image),
      file(checked_image.file()),
      options(check_options),
      geometry(checked_image.header()),
      file_size(align_up(checked_image.file().size(), 512)),
      result(std::move(stored_refcounts),
             qcow2::max_refcount(checked_image.header().refcount_order), options.most_findings),
      copied(options.most_findings),
      most_structure_clusters_(find_most_structure_clusters()) {
  result.file_clusters = divide_up(file_size, geometry.cluster_size());
  result.counts.total_clusters = divide_up(image.guest_size(), geometry.cluster_size());
}

std::uint64_t WalkedRanges::add(HostRange range) {
  // What of it is covered, and the ranges that it joins: those that begin at or before its end.
  auto next = ends_.upper_bound(range.begin);
  if (next != ends_.begin() && std::prev(next)->second >= range.begin)
    --next;
  while (next != ends_.end() && next->first <= range.end) {
    const HostOffset begin = std::max(range.begin, next->first);
    const HostOffset end = std::min(range.end, next->second);
    repeated_ += end > begin ? end - begin : 0;
    range = {std::min(range.begin, next->first), std::max(range.end, next->second)};
    next = ends_.erase(next);
  }
  ends_.emplace(range.begin, range.end);
  return repeated_;
}

std::uint64_t Survey::most_repeated_bytes() const {
  constexpr std::uint64_t always = 4 << 20;
  const io::FileStatus& status = file.status();
  const bool is_known = status.kind != io::FileKind::block_device && status.allocated != 0;
  return std::max(always, is_known ? std::min(status.size, status.allocated) : status.size);
}

// Each cluster of a structure has a refcount, and most have storage. Where the refcounts are lost,
// or storage is compressed, there may be more clusters than either says.
std::uint64_t Survey::find_most_structure_clusters() const {
  constexpr std::uint64_t always = 1 << 18;
  constexpr std::uint64_t most_compression = 16;
  const io::FileStatus& status = file.status();
  const bool is_known = status.kind != io::FileKind::block_device && status.allocated != 0;
  const std::uint64_t bytes =
      is_known ? std::min(status.size / most_compression, status.allocated) * most_compression
               : status.size;
  return std::max({always, stored.counted(), bytes / geometry.cluster_size()});
}

Result<void> Survey::for_each_entry(
    HostOffset table, std::uint64_t bytes, WalkedRanges& walked, std::string_view tables,
    const std::function<void(const io::Unread& unread)>& lose,
    const std::function<void(std::uint64_t raw, std::uint64_t index)>& visit) {
  constexpr std::uint64_t piece_bytes = 1 << 20;
  std::vector<be64> piece;
  // A part of an entry, at the end of the file, says nothing.
  bytes =
      std::min(bytes, align_down(file.size() - std::min(file.size(), table.value), sizeof(be64)));
  for (std::uint64_t at = 0; at < bytes;) {
    const HostOffset from = table + at;
    if (from.value >= file.size())
      return {};
    const HostOffset data = TRY(file.next_data(from));
    at += align_down(data - from, sizeof(be64));
    if (at >= bytes)
      return {};
    const HostOffset hole = std::max(TRY(file.next_hole(data)), data + 1);
    const std::uint64_t until_hole = align_up(hole - (table + at), sizeof(be64));
    const std::uint64_t size = std::min({piece_bytes, bytes - at, until_hole});
    if (walked.add({table + at, table + at + size}) > most_repeated_bytes()) {
      note_not_walked(fmt::format("{} that repeat more than {} bytes of others", tables,
                                  most_repeated_bytes()));
      return {};
    }
    piece.resize(size / sizeof(be64));
    if (const io::Unread unread = io::read_table_parts(file, table + at, writable_bytes_of(piece));
        unread.error)
      lose(unread);
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (const std::uint64_t raw = piece[i].get(); raw != 0)
        visit(raw, at / sizeof(be64) + i);
    }
    at += size;
  }
  return {};
}

void Survey::note_unread(const io::Unread& unread, Structure structure, std::uint64_t index) {
  for (const HostRange& range : unread.ranges)
    result.findings.add({.code = Code::table_unreadable,
                         .detail = unread.error->message,
                         .structure = structure,
                         .index = index,
                         .host = range});
  if (unread.ranges.empty())
    result.findings.add({.code = Code::table_unreadable,
                         .detail = unread.error->message,
                         .structure = structure,
                         .index = index});
}

void Survey::note_not_walked(std::string detail) {
  result.is_partial = true;
  if (not_walked_.insert(detail).second)
    result.findings.add({.code = Code::mapping_not_walked, .detail = std::move(detail)});
}

void Survey::corruption(Finding finding) {
  result.counts.corruptions += finding.count;
  result.findings.add(std::move(finding));
}

Finding Survey::past_end(Structure structure, std::uint64_t index, HostRange at,
                         std::uint64_t offset, std::uint64_t size) const {
  return {.code = Code::reference_past_end,
          .structure = structure,
          .index = index,
          .host = at,
          .entry = offset,
          .expected = size,
          .found = file_size};
}

bool Survey::claim(std::uint64_t offset, std::uint64_t size, Structure structure,
                   std::uint64_t index, std::uint64_t times, HostRange at) {
  if (size == 0)
    return true;
  if (reaches_past_end(offset, size)) {
    corruption(past_end(structure, index, at, offset, size));
    return false;
  }
  // These are written whole. The mapping pass says what is lost with L1 and L2 tables.
  const bool is_whole = structure == Structure::bitmap_table ||
                        structure == Structure::bitmap_data ||
                        structure == Structure::snapshot_table;
  if (is_whole && offset + size > file.size())
    result.findings.add({.code = Code::table_past_end,
                         .structure = structure,
                         .index = index,
                         .host = {{std::max(offset, file.size())}, {offset + size}}});
  const std::uint64_t first = cluster_of(offset);
  const std::uint64_t count = cluster_of(offset + size - 1) - first + 1;
  structure_clusters_ += count;
  if (structure_clusters_ > most_structure_clusters_) {
    note_not_walked(fmt::format("structures of more than {} clusters", most_structure_clusters_));
    return false;
  }
  Owner owner{first, count, times, structure, index};
  Owner* last = result.owners.empty() ? nullptr : &result.owners.back();
  const bool goes_on = last != nullptr && last->structure == structure && last->index == index &&
                       last->times == times && last->first + last->count == first;
  if (goes_on)
    last->count += count;
  else
    result.owners.push_back(owner);
  claim_clusters(first, count, structure, index, times);
  return true;
}

void Survey::claim_clusters(std::uint64_t first, std::uint64_t count, Structure structure,
                            std::uint64_t index, std::uint64_t times) {
  for (const Claims::Overflow& overflow : result.claims.add(first, count, times)) {
    result.overflows.add(overflow.cluster, 1, overflow.times);
    corruption({.code = Code::refcount_overflow,
                .structure = structure,
                .index = index,
                .count = overflow.times,
                .host = range_of(overflow.cluster)});
  }
}

}  // namespace coldchain::check
