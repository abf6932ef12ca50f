// SPDX-License-Identifier: MIT
// Commit: moves the data of the layers above a base into the base, and may empty the image at the
// top. The data that the guest reads through the top never changes: the layers above hide what is
// written to the base. The top frees its clusters, one L1 entry after the other, only when the base
// has all the data and it is on the storage. Other images and internal snapshots that read through
// the base see a change from the first byte on: the caller has made sure that there are none. If
// the base is deeper than the next layer, the layers in between are stale from then on. Two images
// change in one operation: the side file of the top records that a commit is pending, from the
// beginning to the end, and the side file of the base records the progress of the copy.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

// How to treat the bitmaps of the layers above the base.
enum class BitmapRule {
  qemu,   // they stay there, and are listed
  merge,  // libvirt's rule: bitmaps that record in all these layers are merged into the base
  drop,   // they stay there, and are not listed
};

struct CommitOptions {
  std::size_t base = 1;    // the layer that is written to
  bool force = false;      // even if an internal snapshot reads through what changes
  bool reparents = false;  // recorded in the top's side file; the caller changes the overlays
  BitmapRule bitmaps = BitmapRule::qemu;
  bool detects_zeroes = false;  // data of the layers above that is all zeros is not allocated
  unsigned workers = 1;
  Progress progress{};
};

struct Commit {
  Cost cost;                            // of the base
  std::uint64_t overwritten_bytes = 0;  // of guest data, in place; a part of the written bytes
  std::uint64_t disk_size_before = 0;   // size of the base's disk, in bytes
  std::uint64_t disk_size_after = 0;
  std::vector<GuestRange> changed;          // of the base's disk: sorted, disjoint
  std::vector<std::string> stale_layers;    // show different data to their guests afterwards
  std::vector<LayerStorage> not_needed;     // may be deleted: the base has all their data
  std::vector<std::string> snapshots;       // of these layers; they read different data afterwards
  std::vector<std::string> bitmaps_left;    // of these layers; they stay there
  std::vector<std::string> bitmaps_merged;  // of the base; they get the bits of the layers
  std::vector<std::string> bitmaps_marked;  // of the base; they record the writes
  std::vector<HostRange> freed;             // of the base's file; no longer needed
  edit::ChangeFacts change;
  edit::FreshData data;
};

// `transaction` is of the base's file, and empty; `chain` is that of the top, and `base_chain`
// begins with the base. All outlive the result. Errors: `refused` if the base is damaged, dirty or
// encrypted, has an external data file, is a window of a file or needs a larger device (with the
// size), and if internal snapshots would read different data (without `force`). Each error names
// its image.
[[nodiscard]] Result<Commit> plan_commit(edit::Transaction& transaction, const graph::Chain& chain,
                                         const graph::Chain& base_chain,
                                         const CommitOptions& options);

// The change of the top after the base has all the data.
struct Emptying {
  std::uint64_t metadata_bytes = 0;  // sectors that change, however often
  std::uint64_t image_end_before = 0;
  std::uint64_t image_end_after = 0;
  edit::ChangeFacts change;
};

// `transaction` is of the top's file, and empty. Without `empties`, the change only records that a
// commit is pending. Error: `refused` if the image is damaged or dirty.
[[nodiscard]] Result<Emptying> plan_emptying(edit::Transaction& transaction,
                                             const graph::Chain& chain, bool empties,
                                             const CommitOptions& options);

// Error: `refused` if the base, `base_chain`, does not have the data of the layers above it.
[[nodiscard]] Result<void> check_committed(const graph::Chain& chain, std::size_t base,
                                           const graph::Chain& base_chain, unsigned workers);

// The number that identifies an image in a side file.
[[nodiscard]] std::uint64_t commit_argument(const graph::Node& image);

// Unreferenced whole clusters of an image file, and the end of the last used cluster. Error:
// `refused` if the image is not sound.
struct Unused {
  std::vector<HostRange> ranges{};
  std::uint64_t end = 0;  // bytes
};
[[nodiscard]] Result<Unused> find_unused(const io::File& image);

}  // namespace coldchain::ops
