// SPDX-License-Identifier: MIT
// Commit: what lies above a base moves into it, and the image at the top may be emptied.
// What the guest reads through the top never changes: whatever is written to the base, the layers
// above hide; only when the base has all of it, and it is on the storage, does the top let go of
// its clusters, one L1 entry after the other. What other images, and internal snapshots, read
// through the base changes with its first byte: who asks has made sure that there are none. With a
// base deeper than the next layer, the layers in between are stale from then on. Two images change
// under one operation: the side file of the top says from the beginning to the end that a commit is
// under way, that of the base how far the copy is.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

// What becomes of the bitmaps of the layers above the base.
enum class BitmapRule {
  qemu,   // they stay there, and are told
  merge,  // libvirt's rule: those that record in all of these layers become part of the base's
  drop,   // as with qemu, and nobody misses them
};

struct CommitOptions {
  std::size_t base = 1;    // the layer that is written to
  bool force = false;      // also where an internal snapshot reads through what changes
  bool reparents = false;  // noted in the top's side file: overlays are somebody else's affair
  BitmapRule bitmaps = BitmapRule::qemu;
  bool detects_zeroes = false;  // data of the layers above that is zeros takes no place
  unsigned workers = 1;
  Progress progress{};
};

struct Commit {
  Cost cost;                            // of the base
  std::uint64_t overwritten_bytes = 0;  // of guest data, in place; a part of the written bytes
  std::uint64_t disk_size_before = 0;   // what a guest of the base sees, in bytes
  std::uint64_t disk_size_after = 0;
  std::vector<GuestRange> changed;          // of the base's disk: sorted, disjoint
  std::vector<std::string> stale_layers;    // show something else to their guests afterwards
  std::vector<LayerStorage> not_needed;     // may be deleted: the base has all that they have
  std::vector<std::string> snapshots;       // of these, that read something else afterwards
  std::vector<std::string> bitmaps_left;    // of these: they stay where they are
  std::vector<std::string> bitmaps_merged;  // of the base: they got what those of the layers say
  std::vector<std::string> bitmaps_marked;  // of the base: they record what is written
  std::vector<HostRange> freed;             // of the base's file: nothing needs them any more
  edit::ChangeFacts change;
  edit::FreshData data;
};

// `transaction` is of the base's file, and empty; `chain` is that of the top, `base_chain` begins
// with the base. All outlive what is returned. Errors: `refused` for a base that is damaged, dirty
// or encrypted, has an external data file, is a window of a file or would need a larger device
// (with the size), and for internal snapshots that would read something else (without `force`).
// Each names the image that it is about.
[[nodiscard]] Result<Commit> plan_commit(edit::Transaction& transaction, const graph::Chain& chain,
                                         const graph::Chain& base_chain,
                                         const CommitOptions& options);

// What becomes of the top when the base has all.
struct Emptying {
  std::uint64_t metadata_bytes = 0;  // sectors that change, however often
  std::uint64_t image_end_before = 0;
  std::uint64_t image_end_after = 0;
  edit::ChangeFacts change;
};

// `transaction` is of the top's file, and empty. Without `empties`, nothing changes but that a
// commit is known to be under way. `refused` for an image that is damaged or dirty.
[[nodiscard]] Result<Emptying> plan_emptying(edit::Transaction& transaction,
                                             const graph::Chain& chain, bool empties,
                                             const CommitOptions& options);

// `refused` where the base, `base_chain`, does not show what the layers above it have.
[[nodiscard]] Result<void> check_committed(const graph::Chain& chain, std::size_t base,
                                           const graph::Chain& base_chain, unsigned workers);

// By what a side file knows an image.
[[nodiscard]] std::uint64_t commit_argument(const graph::Node& image);

// Whole clusters of an image file to which nothing refers, and where the last one ends that is
// used. `refused` for an image that is not sound.
struct Unused {
  std::vector<HostRange> ranges{};
  std::uint64_t end = 0;  // bytes
};
[[nodiscard]] Result<Unused> find_unused(const io::File& image);

}  // namespace coldchain::ops
