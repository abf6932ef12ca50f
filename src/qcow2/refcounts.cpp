// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

// Whether an entry is zero does not depend on the byte order. Entries of a few bits: all those of a
// word at once.
std::uint64_t count_nonzero_bits(ByteView block, unsigned order, std::uint64_t count) {
  const std::uint64_t per_word = 64U >> order;
  const std::uint64_t lowest_bits = ~std::uint64_t{0} / ((1U << (1U << order)) - 1);
  std::uint64_t nonzero = 0;
  std::uint64_t i = 0;
  for (; count - i >= per_word; i += per_word) {
    std::uint64_t word = 0;
    std::memcpy(&word, block.data() + i / per_word * sizeof(word), sizeof(word));
    for (unsigned bits = 1; bits < 1U << order; bits *= 2)
      word |= word >> bits;
    nonzero += static_cast<std::uint64_t>(std::popcount(word & lowest_bits));
  }
  for (; i < count; ++i)
    nonzero += refcount_at(block, order, i) != 0 ? 1 : 0;
  return nonzero;
}

template <class Entry>
std::uint64_t count_nonzero_entries(ByteView block, std::uint64_t count) {
  std::uint64_t nonzero = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    Entry entry;
    std::memcpy(&entry, block.data() + i * sizeof(Entry), sizeof(Entry));
    nonzero += entry != 0 ? 1 : 0;
  }
  return nonzero;
}

std::uint64_t count_nonzero(ByteView block, unsigned refcount_order, std::uint64_t count) {
  switch (refcount_order) {
    case 3:
      return count_nonzero_entries<std::uint8_t>(block, count);
    case 4:
      return count_nonzero_entries<std::uint16_t>(block, count);
    case 5:
      return count_nonzero_entries<std::uint32_t>(block, count);
    case 6:
      return count_nonzero_entries<std::uint64_t>(block, count);
    default:
      return count_nonzero_bits(block, refcount_order, count);
  }
}

}  // namespace

std::uint64_t refcount_at(ByteView block, unsigned refcount_order, std::uint64_t index) {
  if (refcount_order < 3) {
    const unsigned bits = 1U << refcount_order;
    const std::uint64_t bit = index * bits;
    const auto byte = std::to_integer<unsigned>(block[bit / 8]);
    return byte >> (bit % 8) & ((1U << bits) - 1);
  }
  const std::size_t bytes = std::size_t{1} << (refcount_order - 3);
  std::uint64_t value = 0;
  for (const std::byte b : block.subspan(index * bytes, bytes))
    value = value << 8 | std::to_integer<std::uint64_t>(b);
  return value;
}

void set_refcount_at(ByteSpan block, unsigned refcount_order, std::uint64_t index,
                     std::uint64_t value) {
  if (refcount_order < 3) {
    const unsigned bits = 1U << refcount_order;
    const std::uint64_t bit = index * bits;
    const unsigned shift = bit % 8;
    const unsigned mask = ((1U << bits) - 1) << shift;
    auto byte = std::to_integer<unsigned>(block[bit / 8]);
    byte = (byte & ~mask) | (static_cast<unsigned>(value) << shift & mask);
    block[bit / 8] = static_cast<std::byte>(byte);
    return;
  }
  const std::size_t bytes = std::size_t{1} << (refcount_order - 3);
  for (std::size_t i = 0; i < bytes; ++i)
    block[index * bytes + i] = static_cast<std::byte>(value >> (8 * (bytes - 1 - i)));
}

Result<Refcounts> Refcounts::open(const io::File& file, const Header& header) {
  Refcounts refcounts(file, header);
  const std::uint64_t bytes = header.refcount_table_clusters * header.cluster_size();
  if (bytes > limits::max_refcount_table_bytes)
    return fail(ErrorCode::too_large,
                fmt::format("Reference count table too large ({} bytes, at most {})", bytes,
                            limits::max_refcount_table_bytes));
  if (!is_aligned(header.refcount_table_offset, header.cluster_size()))
    return fail(ErrorCode::corrupt, fmt::format("Reference count table offset {:#x} is not aligned "
                                                "to a cluster",
                                                header.refcount_table_offset));
  refcounts.table_.resize(bytes / sizeof(be64));
  TRY(io::read_exactly(file, {header.refcount_table_offset}, writable_bytes_of(refcounts.table_),
                       "refcount table"));
  std::vector<std::uint64_t> blocks;
  for (const be64& raw : refcounts.table_) {
    if ((raw.get() & refcount_block_mask) != 0)
      blocks.push_back(raw.get() & refcount_block_mask);
  }
  if (const std::size_t count = blocks.size(); repeats_itself(std::move(blocks)))
    return fail(ErrorCode::corrupt,
                fmt::format("refcount table names the same few blocks in {} entries", count));
  return refcounts;
}

Result<bool> Refcounts::read_block(std::uint64_t index, Bytes& block) const {
  const std::uint64_t offset = table_[index].get() & refcount_block_mask;
  if (offset == 0)
    return false;
  const std::uint64_t cluster_size = 1ULL << cluster_bits_;
  if (!is_aligned(offset, cluster_size))
    return fail(
        ErrorCode::corrupt,
        fmt::format("refcount table entry {}: block offset {:#x} is not aligned to a cluster",
                    index, offset));
  if (io::is_hole(*file_, {{offset}, {offset + cluster_size}}))
    return false;  // all counts are zero
  block.resize(cluster_size);
  TRY(io::read_exactly(*file_, {offset}, block,
                       fmt::format("refcount block of table entry {}", index)));
  return true;
}

Result<std::uint64_t> Refcounts::count_used(std::uint64_t clusters, std::uint64_t enough) const {
  std::uint64_t used = 0;
  Bytes block;
  const std::uint64_t per_block = entries_per_block();
  for (std::uint64_t i = 0; i < table_.size() && i * per_block < clusters && used < enough; ++i) {
    if (!TRY(read_block(i, block)))
      continue;
    used += count_nonzero(block, order_, std::min(per_block, clusters - i * per_block));
  }
  return std::min(used, enough);
}

Result<HostOffset> Refcounts::image_end() const {
  Bytes block;
  const std::uint64_t per_block = entries_per_block();
  for (std::uint64_t i = table_.size(); i-- > 0;) {
    if (!TRY(read_block(i, block)) || is_zero(block))
      continue;
    std::uint64_t entry = per_block - 1;
    while (refcount_at(block, order_, entry) == 0)
      --entry;
    const auto cluster = checked_mul(i, per_block);
    const auto end = cluster ? checked_mul(*cluster + entry + 1, 1ULL << cluster_bits_) : cluster;
    if (!end)
      return fail(ErrorCode::corrupt,
                  fmt::format("refcount table entry {} describes clusters past 2^64", i));
    return HostOffset{*end};
  }
  return HostOffset{0};
}

}  // namespace coldchain::qcow2
