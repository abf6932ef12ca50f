// SPDX-License-Identifier: MIT
// What a guest reads from an image that stands alone, cluster by cluster, the disk and every
// snapshot.
#pragma once

#include <map>
#include <optional>
#include <string>

#include <coldchain/qcow2/image.hpp>

namespace coldchain::testing {

// By "disk N" or "snapshot I, N": the content of a cluster; nothing where it cannot be read. What
// lies past the end of the file is not told from zeros.
using GuestReads = std::map<std::string, std::optional<Bytes>>;

inline void add_reads(const qcow2::Image& image, const Result<qcow2::Mapping>& mapping,
                      const std::string& prefix, GuestReads& reads) {
  if (!mapping)
    return;
  qcow2::Mapping::Cursor cursor;
  qcow2::Image::Unpacked unpacked;
  const std::uint64_t cluster_size = image.header().cluster_size();
  // A damaged header may say any size and any number of snapshots; the images of the tests are
  // small.
  const std::uint64_t end = std::min<std::uint64_t>(mapping->guest_size(), 4 << 20);
  for (std::uint64_t offset = 0; offset < end; offset += cluster_size) {
    std::optional<Bytes>& read = reads[prefix + std::to_string(offset / cluster_size)];
    Bytes bytes(std::min(cluster_size, mapping->guest_size() - offset));
    bool is_read = true;
    for (std::uint64_t done = 0; is_read && done < bytes.size();) {
      const Result<qcow2::Location> location = mapping->locate({offset + done}, cursor);
      is_read = location.has_value();
      if (!is_read)
        break;
      const std::uint64_t count = std::min(location->length, bytes.size() - done);
      if (location->kind == qcow2::RunKind::data || location->kind == qcow2::RunKind::compressed)
        is_read =
            image.read(*location, {offset + done}, ByteSpan(bytes).subspan(done, count), unpacked)
                .has_value();
      done += count;
    }
    if (is_read)
      read = std::move(bytes);
  }
}

[[nodiscard]] inline GuestReads guest_reads(const io::File& file) {
  GuestReads reads;
  const Result<qcow2::Image> image = qcow2::Image::open_damaged(file);
  if (!image || image->header().has_data_file() || image->header().crypt_method != 0)
    return reads;
  add_reads(*image, image->active_mapping(), "disk ", reads);
  const auto snapshots = qcow2::read_snapshots(file, image->header());
  for (std::size_t i = 0; snapshots && i < std::min<std::size_t>(snapshots->size(), 4); ++i)
    add_reads(*image, image->snapshot_mapping((*snapshots)[i]),
              "snapshot " + std::to_string(i) + ", ", reads);
  return reads;
}

}  // namespace coldchain::testing
