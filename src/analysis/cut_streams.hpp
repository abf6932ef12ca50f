// SPDX-License-Identifier: MIT
// Whether a compressed cluster whose last sector the end of the file cuts can be read: some writers
// do not pad that sector, and only decompressing tells. One sector holds the ends of few streams;
// a hostile file names very many, of which the first are decompressed and the others are lost.
#pragma once

#include <map>
#include <utility>

#include <coldchain/graph/chain.hpp>

namespace coldchain::analysis {

class CutStreams {
 public:
  // `no` or `past_end` for the compressed cluster of `layer` that has the guest byte at `at`.
  [[nodiscard]] qcow2::Unreadable decide(const graph::Layer& layer, GuestOffset at);

 private:
  std::map<std::pair<const graph::Layer*, HostOffset>, qcow2::Unreadable> known_;
  std::uint64_t unpacked_bytes_ = 0;
  qcow2::Mapping::Cursor cursor_;
  Bytes stream_;
  Bytes cluster_;
};

}  // namespace coldchain::analysis
