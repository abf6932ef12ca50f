// SPDX-License-Identifier: MIT
// The size of a file that can hold a guest's disk: qemu-img's `measure`. The required size includes
// the metadata of a fully allocated image, so it is enough for every order of writes.
#pragma once

#include <cstdint>
#include <optional>

#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/base/result.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::analysis {

// A qcow2 image that does not exist yet.
struct NewImage {
  unsigned version = 3;
  std::uint64_t cluster_size = 65536;
  std::uint64_t refcount_bits = 16;
  bool extended_l2 = false;
  bool has_backing_file = false;  // it is unknown what will be shared: all may be allocated
  bool is_preallocated = false;   // with its data clusters
};

// In bytes.
struct Measure {
  std::uint64_t required = 0;
  std::uint64_t fully_allocated = 0;
  // The size of copies of the source's bitmaps; nothing if one of the two images can have none, or
  // if they cannot be read.
  std::optional<std::uint64_t> bitmaps{};
  UnreadableRanges unreadable{};  // of the source; counts as data
};

// A raw image of the size of a guest's disk: what is not allocated counts, too.
[[nodiscard]] Measure measure_raw(std::uint64_t guest_size);

// An empty image. Error: invalid_argument where its L1 table would be larger than QEMU allows.
[[nodiscard]] Result<Measure> measure_qcow2(const NewImage& image, std::uint64_t guest_size);

// A copy of what the guest reads through `source`.
[[nodiscard]] Result<Measure> measure_qcow2(const NewImage& image, const graph::Chain& source,
                                            unsigned workers);

}  // namespace coldchain::analysis
