// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/measure.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/geometry.hpp>

namespace coldchain::analysis {

namespace {

constexpr std::uint64_t sector_size = 512;
constexpr std::uint64_t table_entry_bytes = 8;

std::uint64_t entries_per_l2_table(const NewImage& image) {
  return image.cluster_size / (image.extended_l2 ? 2 * table_entry_bytes : table_entry_bytes);
}

// Refcounts cover themselves: more of them is needed until there is no change any more.
std::uint64_t refcount_clusters(const NewImage& image, std::uint64_t clusters) {
  const std::uint64_t per_block = image.cluster_size * 8 / image.refcount_bits;
  const std::uint64_t per_table_cluster = image.cluster_size / table_entry_bytes;
  for (std::uint64_t own = 0;;) {
    const std::uint64_t blocks = divide_up(clusters + own, per_block);
    const std::uint64_t needed = blocks + divide_up(blocks, per_table_cluster);
    if (needed == own)
      return own;
    own = needed;
  }
}

// Header, tables and refcounts of an image whose clusters are all allocated, in clusters.
Result<std::uint64_t> metadata_clusters(const NewImage& image, std::uint64_t data_clusters) {
  const std::uint64_t l2_tables = divide_up(data_clusters, entries_per_l2_table(image));
  const std::uint64_t l1_bytes = l2_tables * table_entry_bytes;
  if (l1_bytes > qcow2::limits::max_l1_bytes)
    return fail(ErrorCode::invalid_argument,
                "The image size is too large (try using a larger cluster size)");
  const std::uint64_t tables = 1 + divide_up(l1_bytes, image.cluster_size) + l2_tables;
  return tables + refcount_clusters(image, tables + data_clusters);
}

Result<Measure> measure(const NewImage& image, std::uint64_t guest_size,
                        std::uint64_t used_clusters) {
  const std::uint64_t data = divide_up(guest_size, image.cluster_size);
  const std::uint64_t metadata = TRY(metadata_clusters(image, data));
  const std::uint64_t used = image.is_preallocated ? data : used_clusters;
  return Measure{.required = (metadata + used) * image.cluster_size,
                 .fully_allocated = (metadata + data) * image.cluster_size};
}

// Clusters in which something is not known to be zero.
Result<std::uint64_t> count_used_clusters(const graph::Chain& source, std::uint64_t cluster_size,
                                          unsigned workers, UnreadableRanges& unreadable) {
  std::uint64_t used = 0;
  std::uint64_t next = 0;  // no cluster below it is counted any more
  const auto count = [&](std::span<const Extent> extents) -> Result<void> {
    unreadable.add(extents);
    for (const Extent& extent : extents) {
      if (extent.zero || !extent.present)
        continue;
      const std::uint64_t first = std::max(next, extent.guest.begin.value / cluster_size);
      const std::uint64_t end = divide_up(extent.guest.end.value, cluster_size);
      used += end - std::min(first, end);
      next = std::max(next, end);
    }
    return {};
  };
  TRY(map(source, {{0}, {source.guest_size()}}, workers, count));
  return used;
}

std::uint64_t directory_bytes(const qcow2::Bitmap& bitmap) {
  qcow2::Bitmap copy = bitmap;
  copy.extra_data.clear();
  return qcow2::encode_bitmap_directory({copy}).size();
}

// Data, table and directory. A bitmap that was not closed is not copied.
std::uint64_t bitmap_bytes(const std::vector<qcow2::Bitmap>& bitmaps, std::uint64_t guest_size,
                           std::uint64_t cluster_size) {
  std::uint64_t clusters = 0;
  std::uint64_t directory = 0;
  for (const qcow2::Bitmap& bitmap : bitmaps) {
    if ((bitmap.flags & qcow2::bitmap_flags::in_use) != 0)
      continue;
    const std::uint64_t bits = divide_up(guest_size, bitmap.granularity());
    const std::uint64_t data = divide_up(divide_up(bits, 8), cluster_size);
    clusters += data + divide_up(data * table_entry_bytes, cluster_size);
    directory += directory_bytes(bitmap);
  }
  return (clusters + divide_up(directory, cluster_size)) * cluster_size;
}

}  // namespace

Measure measure_raw(std::uint64_t guest_size) {
  const std::uint64_t bytes = align_up(guest_size, sector_size);
  return {.required = bytes, .fully_allocated = bytes};
}

Result<Measure> measure_qcow2(const NewImage& image, std::uint64_t guest_size) {
  return measure(image, guest_size, 0);
}

Result<Measure> measure_qcow2(const NewImage& image, const graph::Chain& source, unsigned workers) {
  const std::uint64_t guest_size = source.guest_size();
  UnreadableRanges unreadable;
  const std::uint64_t used =
      image.has_backing_file
          ? divide_up(guest_size, image.cluster_size)
          : TRY(count_used_clusters(source, image.cluster_size, workers, unreadable));
  Measure result = TRY(measure(image, guest_size, used));
  result.unreadable = std::move(unreadable);
  const graph::Layer& top = source.layers().front();
  if (image.version >= 3 && top.mapping && top.qcow2().header().version >= 3) {
    // refusals_of() says why they cannot be read.
    if (const auto bitmaps = qcow2::read_bitmaps(top.qcow2().file(), top.qcow2().header()))
      result.bitmaps = bitmap_bytes(*bitmaps, guest_size, image.cluster_size);
  }
  return result;
}

}  // namespace coldchain::analysis
