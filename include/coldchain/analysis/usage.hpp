// SPDX-License-Identifier: MIT
// How much of a layer is used, and how much of what the guest sees comes from it. All in bytes.
#pragma once

#include <optional>
#include <vector>

#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::analysis {

// What is known from the file system and the header alone.
struct Sizes {
  std::uint64_t capacity = 0;    // the guest's disk; a raw image's exact size
  std::uint64_t allocation = 0;  // storage in use; of qcow2 on a block device, the image end
  std::uint64_t physical = 0;    // the file's length or the device's size
};
[[nodiscard]] Sizes sizes_of(const graph::Node& node);

// The end of the highest host cluster in use: qemu-img check's image-end-offset.
struct ImageEnd {
  HostOffset offset;
  // Stored refcounts cannot be trusted (dirty or corrupt bit, or unreadable): it may lie higher.
  bool is_lower_bound = false;
};

// What an image holds itself, whether or not a layer above hides it. Guest bytes.
struct OwnUsage {
  std::uint64_t data = 0;  // standard clusters; a raw file's bytes that are not in holes
  std::uint64_t zero = 0;  // explicit zeros; a raw file's holes
  std::uint64_t compressed = 0;
  std::uint64_t unreadable = 0;  // data that is lost or out of reach; in none of the others
};

struct NodeUsage {
  std::optional<OwnUsage> own;        // nothing where the tables cannot be read
  std::optional<ImageEnd> image_end;  // of qcow2 images
  finding::Findings findings;
};
[[nodiscard]] NodeUsage usage_of(const graph::Node& node);

// What each layer of a chain provides of the top's guest data: bytes by kind.
struct Provided {
  std::uint64_t data = 0;
  std::uint64_t zero = 0;
  std::uint64_t compressed = 0;
  std::uint64_t unreadable = 0;
  [[nodiscard]] std::uint64_t total() const { return data + zero + compressed + unreadable; }
};
struct Provision {
  std::vector<Provided> layers;
  std::uint64_t absent = 0;  // no layer has it
  UnreadableRanges unreadable{};
};
[[nodiscard]] Result<Provision> provision_of(const graph::Chain& chain, GuestRange range,
                                             unsigned workers);

}  // namespace coldchain::analysis
