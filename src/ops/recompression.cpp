// SPDX-License-Identifier: MIT
#include "recompression.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/parallel.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

// In whole sectors; nothing where these would not be less than a cluster.
Result<Bytes> compress(const qcow2::Image& image, ByteView cluster) {
  Bytes stream(cluster.size() - qcow2::compressed_sector_size);
  const std::size_t size = TRY(image.compress(cluster, stream));
  std::fill(stream.begin() + static_cast<std::ptrdiff_t>(size), stream.end(), std::byte{0});
  stream.resize(align_up(size, qcow2::compressed_sector_size));
  return stream;
}

}  // namespace

Result<void> for_each_recompressed(graph::Reader& reader, const qcow2::Image& image,
                                   const Piece& piece, unsigned workers,
                                   const RecompressedConsumer& take) {
  const std::uint64_t cluster_size = image.header().cluster_size();
  const std::size_t count = divide_up(piece.guest.size(), cluster_size);
  Bytes content(count * cluster_size);
  TRY(reader.read(piece.guest.begin, ByteSpan(content).first(piece.guest.size())));
  const auto cluster = [&](std::size_t index) {
    return ByteView(content).subspan(index * cluster_size, cluster_size);
  };
  std::vector<Result<Bytes>> streams(count);
  parallel_for(count, workers,
               [&](std::size_t index) { streams[index] = compress(image, cluster(index)); });
  for (std::size_t i = 0; i < count; ++i) {
    const GuestOffset begin = piece.guest.begin + i * cluster_size;
    const Bytes stream = TRY(std::move(streams[i]));
    TRY(take({{begin, std::min(piece.guest.end, begin + cluster_size)}, cluster(i), stream}));
  }
  return {};
}

}  // namespace coldchain::ops
