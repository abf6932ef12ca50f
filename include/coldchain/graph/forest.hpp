// SPDX-License-Identifier: MIT
// The backing trees of a folder: every qcow2 image in it, every file that one of these images
// names, and the links between them. Commit uses it to protect other overlays. Files are opened one
// after the other and closed again, so a folder may hold any number of images.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

struct ForestImage {
  std::string path;  // an operand for it
  std::string name;  // by which it was opened
  std::string format;
  bool is_open = false;
  bool in_scan = true;         // false: named by an image, but not in the folders that were scanned
  std::uint64_t capacity = 0;  // bytes; of a raw file its exact size
  std::uint64_t guest_size = 0;         // bytes, in whole sectors
  std::optional<qcow2::Header> header;  // of qcow2 images
  io::FileStatus status;
  bool follows_links = true;  // false: no overlay records its format; its links are not opened
  std::optional<std::size_t> backing;  // index of the image that backs this one
  std::vector<std::size_t> overlays;   // indices of the images that this one backs, by path
  std::vector<std::size_t>
      data_file_of;  // indices of the images whose guest data lies in this file
  finding::Findings findings;
};

struct Forest {
  std::vector<ForestImage> images;  // by path
  std::vector<std::size_t> roots;   // images without a backing image here; of a loop, one member
  std::size_t other_files = 0;      // neither qcow2 nor named by an image
  std::vector<std::string> other_paths;  // of those
  std::vector<Error> unreadable;         // folders and files that could not be read
};

// Called for each image while it is open, from several threads at once; again, from one thread, for
// a file that turns out to be raw.
using Inspect = std::function<void(const std::string& path, const Node& node)>;

[[nodiscard]] Result<Forest> scan(const io::FileSource& files, const io::OpenPolicy& policy,
                                  const std::vector<std::string>& directories, unsigned workers,
                                  const Inspect& inspect);

}  // namespace coldchain::graph
