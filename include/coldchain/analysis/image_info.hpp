// SPDX-License-Identifier: MIT
// What one image says of itself: the facts behind `info`, gathered from an opened node.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/luks.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::analysis {

struct ImageInfo {
  std::string filename;
  std::string format;
  std::uint64_t virtual_size = 0;       // as the guest sees it: whole sectors
  std::uint64_t actual_size = 0;        // storage in use
  std::optional<qcow2::Header> header;  // of qcow2 images
  // The backing name as recorded, and the path that it leads to where it is one.
  std::optional<std::string> backing_filename;
  std::optional<std::string> full_backing_filename;
  std::vector<qcow2::Snapshot> snapshots;
  std::vector<qcow2::Bitmap> bitmaps;
  std::optional<qcow2::LuksInfo> luks;
  finding::Findings findings;
};

[[nodiscard]] ImageInfo image_info(const graph::Node& node);

}  // namespace coldchain::analysis
