// SPDX-License-Identifier: MIT
#include "cut_streams.hpp"

namespace coldchain::analysis {

qcow2::Unreadable CutStreams::decide(const qcow2::Image& image, const qcow2::Mapping& mapping,
                                     GuestOffset at) {
  constexpr std::uint64_t most_unpacked_bytes = 64ULL << 20;
  if (unpacked_bytes_ >= most_unpacked_bytes)
    return qcow2::Unreadable::past_end;
  const Result<qcow2::Location> location = mapping.locate(at, cursor_);
  if (!location)
    return qcow2::Unreadable::past_end;
  // All streams that are cut end in the same sector: where one begins, it is known.
  const auto [known, is_new] = known_.try_emplace({&image, location->compressed.begin});
  if (!is_new)
    return known->second;
  cluster_.resize(image.header().cluster_size());
  unpacked_bytes_ += cluster_.size();
  known->second = image.decompress(location->compressed, stream_, cluster_)
                      ? qcow2::Unreadable::no
                      : qcow2::Unreadable::past_end;
  return known->second;
}

}  // namespace coldchain::analysis
