// SPDX-License-Identifier: MIT
#include "compressed_streams.hpp"

#include <algorithm>

namespace coldchain::check {

std::vector<std::uint64_t> CompressedStreams::choose(const std::vector<CompressedEntry>& entries) {
  std::vector<std::uint64_t> streams;
  if (entries.empty())
    return streams;
  if (!data_bytes_) {
    const io::File& file = image_.file();
    data_bytes_ = 0;
    if (const auto ranges = io::data_ranges(file, {{0}, {file.size()}})) {
      for (const HostRange& range : *ranges)
        *data_bytes_ += range.size();
    } else {
      data_bytes_ = file.size();
    }
  }
  std::unordered_set<std::uint64_t> chosen;
  for (const CompressedEntry& entry : entries) {
    const std::uint64_t stream = stream_of(entry.raw);
    if (sound_.contains(stream) || !chosen.insert(stream).second)
      continue;
    bytes_ += least_bytes(stream);
    is_exceeded_ = is_exceeded_ || bytes_ > most_bytes();
    if (is_exceeded_)
      break;
    streams.push_back(stream);
  }
  return streams;
}

void CompressedStreams::note_sound(std::uint64_t stream) {
  if (sound_.size() < most_sound)
    sound_.insert(stream);
}

// The entry tells in which sector a stream ends; a stream as long as its cluster would be of no
// use, and a damaged entry may say anything. A stream cannot be shorter than the densest one of its
// cluster: deflate makes at most 258 bytes of 2 bits (RFC 1951), zstd 128 KiB of 4 bytes (RFC 8878,
// RLE blocks).
std::uint64_t CompressedStreams::least_bytes(std::uint64_t stream) const {
  const qcow2::Header& header = image_.header();
  const auto extent = qcow2::L2Entry(stream).compressed_extent(header.cluster_bits);
  const std::uint64_t in_sectors =
      extent.max_bytes - std::min(extent.max_bytes, qcow2::compressed_sector_size - 1);
  const std::uint64_t densest = header.compression_type() == 0 ? 1032 : 32768;
  return std::max({std::min(in_sectors, header.cluster_size()), header.cluster_size() / densest,
                   std::uint64_t{1}});
}

std::uint64_t CompressedStreams::most_bytes() const {
  // Streams that were not remembered may be decompressed again for each snapshot.
  return *data_bytes_ * (sound_.size() < most_sound ? 1 : l1_tables_);
}

}  // namespace coldchain::check
