// SPDX-License-Identifier: MIT
// Whether a compressed cluster whose last sector the end of the file cuts can be read: some writers
// do not pad that sector, and only decompressing tells. One sector holds the ends of few streams;
// a hostile file names very many, of which the first are decompressed and the others are lost.
#pragma once

#include <algorithm>
#include <map>
#include <utility>

#include <coldchain/base/checked.hpp>
#include <coldchain/qcow2/image.hpp>

namespace coldchain::analysis {

class CutStreams {
 public:
  // `no` or `past_end` for the compressed cluster of `mapping`, which is one of `image`, that has
  // the guest byte at `at`.
  [[nodiscard]] qcow2::Unreadable decide(const qcow2::Image& image, const qcow2::Mapping& mapping,
                                         GuestOffset at);

  // Calls `take` with each cluster of `guest`, or the part of it that lies in `guest`, and its
  // state.
  template <class Take>
  Result<void> for_each_cluster(const qcow2::Image& image, const qcow2::Mapping& mapping,
                                GuestRange guest, Take&& take) {
    const std::uint64_t cluster_size = mapping.geometry().cluster_size();
    while (!guest.empty()) {
      const std::uint64_t next = align_down(guest.begin.value, cluster_size) + cluster_size;
      const GuestRange part{guest.begin, std::min(guest.end, GuestOffset{next})};
      if (Result<void> done = take(part, decide(image, mapping, part.begin)); !done)
        return done;
      guest.begin = part.end;
    }
    return {};
  }

 private:
  std::map<std::pair<const qcow2::Image*, HostOffset>, qcow2::Unreadable> known_;
  std::uint64_t unpacked_bytes_ = 0;
  qcow2::Mapping::Cursor cursor_;
  Bytes stream_;
  Bytes cluster_;
};

}  // namespace coldchain::analysis
