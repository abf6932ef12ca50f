// SPDX-License-Identifier: MIT
// The map of a chain: for every guest byte, which layer provides it and how. Extents come in order,
// without gaps, merged by qemu-img's rule. The cost is each layer's metadata read once plus the
// extents, not their product; windows are worked on in parallel, and the result does not depend on
// it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/chain.hpp>

namespace coldchain::analysis {

struct Extent {
  GuestRange guest;
  HostOffset host;          // where has_host
  std::uint32_t layer = 0;  // position in the chain; of the deepest layer asked where none provides
  bool present = false;     // some layer provides it
  bool zero = false;        // reads as zeros
  bool data = false;        // backed by clusters of a qcow2 image or by bytes of a raw file
  bool has_host = false;    // at `host` in the layer's file (its data file, if it has one)
  bool compressed = false;
  bool past_end = false;  // past the end of the backing file of `layer`, which is shorter
  // Whether `layer` can give the data. Where it cannot, the extent is present and has data; it does
  // not read as zeros, unless the chain takes unreadable data as zeros. Never `undecided`.
  qcow2::Unreadable unreadable = qcow2::Unreadable::no;
  // Lost, and a hole for QEMU, which takes metadata for preallocated: its map says that it is zero.
  bool hole_of_qemu = false;

  [[nodiscard]] bool is_lost() const { return qcow2::is_lost(unreadable); }
};

// Whether `next` continues `extent`. In qemu-img's map, an extent that can be read and one that
// cannot may be one.
[[nodiscard]] bool continues(const Extent& extent, const Extent& next);
[[nodiscard]] bool continues_in_qemu(const Extent& extent, const Extent& next);

using ExtentConsumer = std::function<Result<void>(std::span<const Extent>)>;

// Feeds the extents of `range` (within the guest's disk) to `consumer`, a span of some at a time.
[[nodiscard]] Result<void> map(const graph::Chain& chain, GuestRange range, unsigned workers,
                               const ExtentConsumer& consumer);

// The same of one range after the other: what can be known of the files of a chain beforehand is
// looked at once.
class Mapper {
 public:
  struct Source;

  // Whether data in a hole of its file is described as zeros.
  enum class Holes { are_zeros, are_data };

  // `chain` outlives the mapper.
  [[nodiscard]] static Result<Mapper> make(const graph::Chain& chain,
                                           Holes holes = Holes::are_zeros);

  [[nodiscard]] Result<void> map(GuestRange range, unsigned workers,
                                 const ExtentConsumer& consumer) const;

 private:
  Mapper(const graph::Chain& chain, std::vector<Source> sources);

  const graph::Chain* chain_;
  std::shared_ptr<const std::vector<Source>> sources_;
};

}  // namespace coldchain::analysis
