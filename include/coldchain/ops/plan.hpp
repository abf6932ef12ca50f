// SPDX-License-Identifier: MIT
// What a change costs, known before it begins: the change itself, carried out on an overlay that
// keeps metadata and counts data. There is no second estimate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coldchain::ops {

// What is read of one layer.
struct SourceCost {
  std::string filename;
  std::uint64_t bytes = 0;
  std::uint64_t extents = 0;
};

// Host clusters that are added to an image.
struct AddedClusters {
  std::uint64_t data = 0;
  std::uint64_t l2_tables = 0;
  std::uint64_t refcounts = 0;  // blocks and tables
  std::uint64_t others = 0;     // of L1 tables and bitmaps
};

struct Cost {
  std::vector<SourceCost> sources;   // from the top down; those of which nothing is read, too
  std::uint64_t written_bytes = 0;   // guest data
  std::uint64_t zeroed_bytes = 0;    // guest ranges that become explicit zeros
  std::uint64_t metadata_bytes = 0;  // sectors that change, however often
  AddedClusters added;
  std::uint64_t cluster_size = 0;
  std::uint64_t image_end_before = 0;  // bytes: what a block device must have
  std::uint64_t image_end_after = 0;
  std::uint64_t file_size_before = 0;
  std::uint64_t file_size_after = 0;
  // Beside the image while the change is under way.
  std::uint64_t side_file_bytes = 0;
};

// What a side file says that was asked for, where data that is zeros may be looked for, and what it
// says of that.
[[nodiscard]] std::string verb_of(std::string_view command, bool detects_zeroes);
[[nodiscard]] bool detects_zeroes(std::string_view verb);

}  // namespace coldchain::ops
