// SPDX-License-Identifier: MIT
#include "survey.hpp"

#include <coldchain/qcow2/refcounts.hpp>

namespace coldchain::check {

using finding::Code;
using finding::Finding;
using finding::Structure;

Survey::Survey(const qcow2::Image& checked_image, const StoredRefcounts& stored_refcounts,
               const CheckOptions& check_options)
    : image(checked_image),
      file(checked_image.file()),
      stored(stored_refcounts),
      options(check_options),
      geometry(checked_image.header()),
      file_size(align_up(checked_image.file().size(), 512)),
      result(qcow2::max_refcount(checked_image.header().refcount_order)) {
  result.file_clusters = divide_up(file_size, geometry.cluster_size());
  result.counts.total_clusters = divide_up(image.guest_size(), geometry.cluster_size());
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
                   std::uint64_t index, std::uint64_t times) {
  if (size == 0)
    return true;
  if (reaches_past_end(offset, size)) {
    corruption(past_end(structure, index, {}, offset, size));
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
    for (std::uint64_t time = 0; time < overflow.times; ++time)
      corruption({.code = Code::refcount_overflow,
                  .structure = structure,
                  .index = index,
                  .host = range_of(overflow.cluster)});
  }
}

}  // namespace coldchain::check
