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

// A layer that may be deleted, and how much that frees.
struct LayerStorage {
  std::string filename;
  std::uint64_t allocated = 0;  // bytes of storage, of an external data file, too
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

// What becomes of compressed clusters of layers that go.
enum class Compressed {
  unpack,
  keep,        // with the image's cluster size and compression, where that takes less room
  recompress,  // the same, and what gets something of the others is compressed, by the same rule
};

// Options that whoever goes on with a change must know; its side file has them behind the verb.
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
