// SPDX-License-Identifier: MIT
// The cost of a change, known before it begins. The change itself runs on an overlay that keeps
// metadata and only counts data. There is no separate estimate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/analysis/unreadable.hpp>

namespace coldchain::ops {

// The reads from one layer.
struct SourceCost {
  std::string filename;
  std::uint64_t bytes = 0;
  std::uint64_t extents = 0;
};

// A layer that may be deleted, and how much that frees.
struct LayerStorage {
  std::string filename;
  std::uint64_t allocated = 0;  // bytes of storage, of an external data file, too
};

// A bitmap of the image that marks the whole disk afterwards.
struct DirtyBitmap {
  std::string name;
  std::string reason;
};

// Host clusters that are added to an image.
struct AddedClusters {
  std::uint64_t data = 0;
  std::uint64_t l2_tables = 0;
  std::uint64_t refcounts = 0;  // blocks and tables
  std::uint64_t others = 0;     // of L1 tables and bitmaps
};

struct Cost {
  std::vector<SourceCost> sources;  // from the top down, including layers that are not read
  std::uint64_t written_bytes = 0;  // guest data
  std::uint64_t zeroed_bytes = 0;   // guest ranges that become explicit zeros
  // Data that cannot be read and is taken as zeros, because the user said so.
  analysis::UnreadableRanges unreadable{};
  std::uint64_t metadata_bytes = 0;  // sectors that change, however often
  AddedClusters added;
  std::uint64_t cluster_size = 0;
  std::uint64_t image_end_before = 0;  // bytes: what a block device must have
  std::uint64_t image_end_after = 0;
  std::uint64_t file_size_before = 0;
  std::uint64_t file_size_after = 0;
  // The size of the side file during the change.
  std::uint64_t side_file_bytes = 0;
};

// How to copy compressed clusters of the layers that are removed.
enum class Compressed {
  unpack,
  keep,        // as they are, if cluster size and compression match and it saves space
  recompress,  // the same; other clusters are compressed again if it saves space
};

// Options that are needed to continue a change. The side file stores them after the verb.
inline constexpr std::string_view detect_zeroes_option = "--detect-zeroes";
inline constexpr std::string_view decompress_option = "--decompress";
inline constexpr std::string_view merge_bitmaps_option = "--bitmaps=merge";
inline constexpr std::string_view recompress_option = "--recompress";
inline constexpr std::string_view reparent_option = "--reparent";
inline constexpr std::string_view snapshots_option = "--snapshots";

[[nodiscard]] std::string with_option(std::string verb, std::string_view option, bool is_given);
[[nodiscard]] bool has_option(std::string_view verb, std::string_view option);
// Of a pull.
[[nodiscard]] Compressed compressed_of(std::string_view verb);

}  // namespace coldchain::ops
