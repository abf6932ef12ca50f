// SPDX-License-Identifier: MIT
// The arithmetic of an image: how guest offsets become L1 and L2 indices, and the limits beyond
// which an image is refused. qcow2.rst, "Cluster mapping", "Extended L2 Entries". The limits are
// QEMU's (block/qcow2.h), so that what it opens opens here.
#pragma once

#include <cstdint>

#include <coldchain/base/offsets.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

namespace limits {
constexpr std::uint32_t min_cluster_bits = 9;
constexpr std::uint32_t max_cluster_bits = 21;
constexpr std::uint32_t max_refcount_order = 6;
constexpr std::uint32_t max_backing_file_size = 1023;
constexpr std::uint32_t max_format_name = 16;  // must be shorter than that
constexpr std::uint64_t max_l1_bytes = 32ULL << 20;
constexpr std::uint64_t max_refcount_table_bytes = 8ULL << 20;
constexpr std::uint32_t max_snapshots = 65536;
constexpr std::uint64_t max_snapshot_table_bytes = 1024ULL * max_snapshots;
constexpr std::uint32_t max_snapshot_extra_data = 1024;
constexpr std::uint32_t max_bitmaps = 65535;
constexpr std::uint64_t max_bitmap_directory_bytes = 1024ULL * max_bitmaps;
constexpr std::uint32_t max_bitmap_name = 1023;
constexpr std::uint32_t max_bitmap_table_entries = 0x8000000;
// QEMU block/qcow2-bitmap.c: BME_MAX_PHYS_SIZE, the bytes of one bitmap in whole clusters.
constexpr std::uint64_t max_bitmap_bytes = 512ULL << 20;
constexpr std::uint64_t max_file_bytes = (1ULL << 63) - (1ULL << 30);  // BDRV_MAX_LENGTH
constexpr unsigned min_bitmap_granularity_bits = 9;
constexpr unsigned max_bitmap_granularity_bits = 31;
}  // namespace limits

class Geometry {
 public:
  // `header` has been accepted by decode_header.
  explicit Geometry(const Header& header)
      : cluster_bits_(header.cluster_bits),
        l2_entry_bytes_(header.has_extended_l2() ? 16 : 8),
        l2_bits_(header.cluster_bits - (header.has_extended_l2() ? 4 : 3)),
        subclusters_(header.has_extended_l2() ? 32 : 1) {}

  [[nodiscard]] unsigned cluster_bits() const { return cluster_bits_; }
  [[nodiscard]] std::uint64_t cluster_size() const { return 1ULL << cluster_bits_; }
  [[nodiscard]] unsigned subclusters_per_cluster() const { return subclusters_; }
  [[nodiscard]] std::uint64_t subcluster_size() const { return cluster_size() / subclusters_; }

  [[nodiscard]] unsigned l2_entry_bytes() const { return l2_entry_bytes_; }
  [[nodiscard]] std::uint64_t l2_entries() const { return 1ULL << l2_bits_; }
  // Guest bytes that one L2 table describes.
  [[nodiscard]] std::uint64_t l2_coverage() const { return 1ULL << (l2_bits_ + cluster_bits_); }

  [[nodiscard]] std::uint64_t l1_index(GuestOffset offset) const {
    return offset.value >> (l2_bits_ + cluster_bits_);
  }
  [[nodiscard]] std::uint64_t l2_index(GuestOffset offset) const {
    return (offset.value >> cluster_bits_) & (l2_entries() - 1);
  }
  [[nodiscard]] std::uint64_t in_cluster(std::uint64_t offset) const {
    return offset & (cluster_size() - 1);
  }

 private:
  unsigned cluster_bits_;
  unsigned l2_entry_bytes_;
  unsigned l2_bits_;
  unsigned subclusters_;
};

}  // namespace coldchain::qcow2
