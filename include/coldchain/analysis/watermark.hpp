// SPDX-License-Identifier: MIT
// Images on block devices that run out of space: what lies behind the image end is free, and the
// device must grow before the image needs it.
#pragma once

#include <cstdint>
#include <optional>

#include <coldchain/analysis/usage.hpp>

namespace coldchain::analysis {

struct WatermarkRule {
  std::uint64_t limit = 0;   // bytes that must be free
  std::uint64_t extent = 1;  // bytes: a device grows by a multiple of it; not 0
};

struct Watermark {
  std::uint64_t free = 0;    // bytes; an upper bound if the image end is a lower one
  std::uint64_t target = 0;  // the size to which the device must grow, in whole extents
  bool is_short = false;     // less than the limit is free, or it is not known to be
};

// Nothing for what is not a qcow2 image on a block device. `usage` is that of the node. An image
// end that cannot be read has all of the device in use, as far as is known.
[[nodiscard]] std::optional<Watermark> watermark_of(const graph::Node& node, const NodeUsage& usage,
                                                    const WatermarkRule& rule);

}  // namespace coldchain::analysis
