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
             qcow2::max_refcount(checked_image.header().refcount_order)) {
  result.file_clusters = divide_up(file_size, geometry.cluster_size());
  result.counts.total_clusters = divide_up(image.guest_size(), geometry.cluster_size());
}

std::uint64_t Survey::honest_bytes() const {
  // Sound images of 16 TiB with ten snapshots have L1 tables of 3 MiB. Storage may be compressed,
  // and not every file system says how much there is.
  constexpr std::uint64_t always = 16 << 20;
  const io::FileStatus& status = file.status();
  const bool is_known = status.kind != io::FileKind::block_device && status.allocated != 0;
  return std::max(always, is_known ? std::min(status.size, 16 * status.allocated) : status.size);
}

Result<void> Survey::for_each_entry(
    HostOffset table, std::uint64_t bytes, std::uint64_t& walked, std::string_view tables,
    const std::function<void(std::uint64_t raw, std::uint64_t index)>& visit) {
  constexpr std::uint64_t piece_bytes = 1 << 20;
  std::vector<be64> piece;
  for (std::uint64_t at = 0; at < bytes;) {
    const HostOffset from = table + at;
    if (from.value >= file.size())
      return {};
    at += align_down(TRY(file.next_data(from)) - from, sizeof(be64));
    if (at >= bytes)
      return {};
    const std::uint64_t size = std::min(piece_bytes, bytes - at);
    walked += size;
    if (walked > honest_bytes()) {
      note_not_walked(tables);
      return {};
    }
    piece.resize(size / sizeof(be64));
    TRY(io::read_zero_extended(file, table + at, writable_bytes_of(piece)));
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (const std::uint64_t raw = piece[i].get(); raw != 0)
        visit(raw, at / sizeof(be64) + i);
    }
    at += size;
  }
  return {};
}

void Survey::note_not_walked(std::string_view tables) {
  result.is_partial = true;
  result.findings.add(
      {.code = Code::mapping_not_walked,
       .detail = fmt::format("{} of more than {} bytes in all", tables, honest_bytes())});
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
  const std::uint64_t first = cluster_of(offset);
  const std::uint64_t count = cluster_of(offset + size - 1) - first + 1;
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
