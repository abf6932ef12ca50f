// SPDX-License-Identifier: MIT
// The backing trees of folders and block devices: every qcow2 image in them, every file that one of
// these images names, and the links between them. Commit and deps use it to find the images that
// depend on another one. Files are opened one after the other and closed again, so a folder may
// hold any number of images.
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
  std::string path;                      // an operand for it
  std::vector<std::string> other_paths;  // under which the scan found the same file, too
  std::string name;                      // by which it was opened
  std::string format;
  bool is_open = false;
  bool in_scan = true;         // false: named by an image, but not in the folders that were scanned
  std::uint64_t capacity = 0;  // bytes; of a raw file its exact size
  std::uint64_t guest_size = 0;         // bytes, in whole sectors
  std::optional<qcow2::Header> header;  // of qcow2 images
  io::FileStatus status;
  bool is_in_loop = false;    // its chain leads back to it
  bool follows_links = true;  // false: its links are not opened, as no overlay records its format
                              // or the policy says so
  // Why files that the image names were not read. This is no finding: the image may be sound.
  std::optional<std::string> unfollowed;
  std::optional<std::size_t> backing;      // index of the image that backs this one
  std::optional<std::size_t> cut_backing;  // what backed this image before a loop was cut here
  std::vector<std::size_t> overlays;       // indices of the images that this one backs, by path
  std::vector<std::size_t>
      data_file_of;  // indices of the images whose guest data lies in this file
  finding::Findings findings;
};

// The role of an image in a forest.
[[nodiscard]] bool is_leaf(const ForestImage& image);    // on a backing file, and under no image
[[nodiscard]] bool is_shared(const ForestImage& image);  // under two overlays or more
[[nodiscard]] bool is_orphan(const ForestImage& image);  // its backing or data file is not there
// On no backing file and under no image: a whole disk, or a template that nothing uses.
[[nodiscard]] bool is_unused(const ForestImage& image);

struct ScanRequest {
  std::vector<std::string> folders;  // operands; searched with all that lies below
  std::vector<std::string> files{};  // operands: images and block devices, whatever their names
  std::string glob{};                // fnmatch(3), of file names in folders; empty: all
};

// A file in the folders that is neither qcow2 nor named by an image.
struct OtherFile {
  std::string path;
  std::vector<std::string> other_paths;  // as of a ForestImage
  std::string format;                    // as probed
  bool begins_as_qcow2 = false;          // with qcow2's magic, but no header that is read
};

struct Forest {
  std::vector<ForestImage> images;  // by path
  std::vector<std::size_t> roots;   // images without a backing image here; of a loop, one member
  std::vector<OtherFile> others;    // by path
  std::vector<std::string> folder_links;  // operands: links to folders that were not searched
  std::vector<std::string> broken_links;  // operands: links that lead nowhere
  std::vector<Error> unreadable;          // folders and files that could not be read
};

// Called for each image while it is open, from several threads at once; again, from one thread, for
// a file that turns out to be raw.
using Inspect = std::function<void(const std::string& path, const Node& node)>;

// Errors: refused (a folder outside the root or sysroot).
[[nodiscard]] Result<Forest> scan(const io::FileSource& files, const io::OpenPolicy& policy,
                                  const ScanRequest& request, unsigned workers,
                                  const Inspect& inspect);

}  // namespace coldchain::graph
