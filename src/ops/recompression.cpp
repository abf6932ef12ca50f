// SPDX-License-Identifier: MIT
#include "recompression.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/parallel.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

constexpr std::uint64_t sector_size = 512;

struct Cluster {
  Bytes content;
  Bytes stream;
};

Result<Cluster> compress(const graph::Chain& chain, GuestRange guest) {
  const qcow2::Image& image = chain.layers().front().qcow2();
  Cluster cluster{Bytes(image.header().cluster_size()), {}};
  TRY(chain.read(guest.begin, ByteSpan(cluster.content).first(guest.size())));
  cluster.stream.resize(cluster.content.size() - sector_size);
  const std::size_t size = TRY(image.compress(cluster.content, cluster.stream));
  std::fill(cluster.stream.begin() + static_cast<std::ptrdiff_t>(size), cluster.stream.end(),
            std::byte{0});
  cluster.stream.resize(align_up(size, sector_size));
  return cluster;
}

}  // namespace

Result<void> for_each_recompressed(const graph::Chain& chain, const Piece& piece, unsigned workers,
                                   const RecompressedConsumer& take) {
  const std::uint64_t cluster_size = chain.layers().front().mapping->geometry().cluster_size();
  const auto part = [&](std::size_t index) {
    const GuestOffset begin = piece.guest.begin + index * cluster_size;
    return GuestRange{begin, std::min(piece.guest.end, begin + cluster_size)};
  };
  std::vector<Result<Cluster>> clusters(divide_up(piece.guest.size(), cluster_size));
  parallel_for(clusters.size(), workers,
               [&](std::size_t index) { clusters[index] = compress(chain, part(index)); });
  for (std::size_t i = 0; i < clusters.size(); ++i) {
    const Cluster cluster = TRY(std::move(clusters[i]));
    TRY(take({part(i), cluster.content, cluster.stream}));
  }
  return {};
}

}  // namespace coldchain::ops
