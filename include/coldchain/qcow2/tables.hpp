// SPDX-License-Identifier: MIT
// Table entries as small classes over their raw bits. qcow2.rst, "Cluster mapping", "Extended L2
// Entries". They answer questions and judge nothing: reserved bits and alignment are for the
// caller.
#pragma once

#include <cstdint>
#include <vector>

#include <coldchain/qcow2/geometry.hpp>

namespace coldchain::qcow2 {

constexpr std::uint64_t copied_flag = 1ULL << 63;
constexpr std::uint64_t compressed_flag = 1ULL << 62;
constexpr std::uint64_t zero_flag = 1ULL << 0;
constexpr std::uint64_t offset_mask = 0x00ff'ffff'ffff'fe00;  // bits 9-55

// qcow2.rst, "Host cluster management": refcount table entry, bits 9-63.
constexpr std::uint64_t refcount_block_mask = ~0x1ffULL;

// Bits that must be zero. L1 table entry: bits 0-8 and 56-62. Standard L2 entry: 1-8 and 56-61.
constexpr std::uint64_t l1_reserved_mask = 0x7f00'0000'0000'01ff;
constexpr std::uint64_t l2_reserved_mask = 0x3f00'0000'0000'01fe;
constexpr std::uint64_t refcount_table_reserved_mask = 0x1ff;

class L1Entry {
 public:
  explicit L1Entry(std::uint64_t raw) : raw_(raw) {}
  // qcow2.rst, "Cluster mapping": L1 table entry, bits 9-55; 0 means no L2 table.
  [[nodiscard]] HostOffset l2_table() const { return {raw_ & offset_mask}; }
  [[nodiscard]] bool has_l2_table() const { return (raw_ & offset_mask) != 0; }

 private:
  std::uint64_t raw_;
};

// The sector size of compressed clusters, independent of the storage's sector size.
constexpr std::uint64_t compressed_sector_size = 512;

// Where the bytes of a compressed cluster lie.
struct CompressedExtent {
  HostOffset begin;         // not aligned to anything
  std::uint64_t max_bytes;  // the stream ends somewhere within

  // Whole sectors, which other clusters may have a part of.
  [[nodiscard]] HostRange sectors() const {
    return {{begin.value & ~(compressed_sector_size - 1)}, begin + max_bytes};
  }
};

class L2Entry {
 public:
  explicit L2Entry(std::uint64_t raw) : raw_(raw) {}

  // Of a compressed cluster whose bytes end where a sector does. Offsets are bounded by
  // end_of_compressed().
  L2Entry(CompressedExtent extent, unsigned cluster_bits)
      : raw_(compressed_flag |
             (extent.sectors().size() / compressed_sector_size - 1)
                 << compressed_offset_bits(cluster_bits) |
             extent.begin.value) {}
  [[nodiscard]] static HostOffset end_of_compressed(unsigned cluster_bits) {
    return {1ULL << compressed_offset_bits(cluster_bits)};
  }

  [[nodiscard]] std::uint64_t raw() const { return raw_; }

  [[nodiscard]] bool is_compressed() const { return (raw_ & compressed_flag) != 0; }
  [[nodiscard]] bool reads_as_zero() const { return (raw_ & zero_flag) != 0; }
  [[nodiscard]] bool is_copied() const { return (raw_ & copied_flag) != 0; }
  [[nodiscard]] HostOffset host_offset() const { return {raw_ & offset_mask}; }
  // Whether a host cluster is there to which nothing else refers, so that it may be written to.
  [[nodiscard]] bool has_own_cluster() const {
    return !is_compressed() && host_offset().value != 0 && is_copied();
  }

  // qcow2.rst, "Compressed Clusters Descriptor".
  [[nodiscard]] CompressedExtent compressed_extent(unsigned cluster_bits) const {
    const unsigned x = compressed_offset_bits(cluster_bits);
    const std::uint64_t offset = raw_ & ((1ULL << x) - 1);
    const std::uint64_t sectors = ((raw_ >> x) & ((1ULL << (cluster_bits - 8)) - 1)) + 1;
    return {{offset}, sectors * 512 - (offset & 511)};
  }

 private:
  static unsigned compressed_offset_bits(unsigned cluster_bits) { return 62 - (cluster_bits - 8); }

  std::uint64_t raw_;
};

// qcow2.rst, "Subcluster Allocation Bitmap".
class SubclusterBitmap {
 public:
  explicit SubclusterBitmap(std::uint64_t raw) : raw_(raw) {}
  [[nodiscard]] std::uint32_t allocated() const { return static_cast<std::uint32_t>(raw_); }
  [[nodiscard]] std::uint32_t zero() const { return static_cast<std::uint32_t>(raw_ >> 32); }

 private:
  std::uint64_t raw_;
};

// Whether a table names a few clusters very many times. No writer makes such a table, and a little
// metadata would take much time to follow. `offsets` contains the nonzero offsets only.
[[nodiscard]] bool repeats_itself(std::vector<std::uint64_t> offsets);

}  // namespace coldchain::qcow2
