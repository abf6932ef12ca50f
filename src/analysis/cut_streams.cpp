// SPDX-License-Identifier: MIT
#include "cut_streams.hpp"

namespace coldchain::analysis {

qcow2::Unreadable CutStreams::decide(const graph::Layer& layer, GuestOffset at) {
  constexpr std::uint64_t most_unpacked_bytes = 64ULL << 20;
  if (unpacked_bytes_ >= most_unpacked_bytes)
    return qcow2::Unreadable::past_end;
  const Result<qcow2::Location> location = layer.mapping->locate(at, cursor_);
  if (!location)
    return qcow2::Unreadable::past_end;
  // All streams that are cut end in the same sector: where one begins, it is known.
  const auto [known, is_new] = known_.try_emplace({&layer, location->compressed.begin});
  if (!is_new)
    return known->second;
  cluster_.resize(layer.qcow2().header().cluster_size());
  unpacked_bytes_ += cluster_.size();
  known->second = layer.qcow2().decompress(location->compressed, stream_, cluster_)
                      ? qcow2::Unreadable::no
                      : qcow2::Unreadable::past_end;
  return known->second;
}

}  // namespace coldchain::analysis
