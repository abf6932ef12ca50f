// SPDX-License-Identifier: MIT
// Block-stream, offline: copies the data that the layers between an image and a base provide into
// the image. The backing file of the image becomes the base, or none. Unallocated clusters stay
// unallocated. A zero that hides data of the base becomes an explicit zero, and so do ranges that
// read as zeros because a layer in between is shorter.
// The data that the guest reads through the image never changes: data is written to unreferenced
// clusters; the tables that refer to them change when the data is on the storage, and the link
// changes last. Only the image is written to.
// Allocate is a pull that also allocates clusters for ranges that no layer provides. Rebase is a
// pull after which the backing file is another chain; data that is equal in that chain is not
// copied.
#pragma once

#include <optional>
#include <string>

#include <coldchain/base/progress.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/allocate.hpp>
#include <coldchain/ops/backing_link.hpp>
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

struct PullOptions {
  std::size_t base = 0;                // the layer that becomes the backing file; 0: none
  const graph::Chain* onto = nullptr;  // instead: the chain below the image afterwards
  std::optional<BackingLink> link{};   // the recorded link; without it the image has none
  // Instead of these: allocate more than the layers below provide.
  std::optional<Allocation> allocation{};
  bool force = false;  // even if an internal snapshot reads through removed layers
  // Also copy what internal snapshots of the image read through the removed layers, for each
  // snapshot separately.
  bool fills_snapshots = false;
  bool detects_zeroes = false;  // data of the removed layers that is all zeros is not allocated
  Compressed compressed = Compressed::unpack;
  // The plan is not carried out. An allocation that needs more tables than a transaction may stage
  // is planned in this case, too, with its numbers only.
  bool is_plan = false;
  unsigned workers = 1;
  Progress progress{};
};

struct Pull {
  Cost cost;
  std::vector<LayerStorage> not_needed;       // layers that the image no longer reads
  std::vector<std::string> snapshots;         // of the image; they read different data afterwards
  std::vector<std::string> filled_snapshots;  // they get the data that they read
  std::vector<std::string> bitmaps;           // of removed layers; they stay there
  // Bitmaps of the image that record get the bits of those of the same name in removed layers, and
  // bits for what is copied.
  std::vector<std::string> bitmaps_marked;
  // The same, if a removed layer cannot say what changed in it.
  std::vector<DirtyBitmap> bitmaps_dirty;
  std::uint64_t compressed_bytes = 0;    // in sectors that are copied as they are
  std::uint64_t recompressed_bytes = 0;  // in sectors that are compressed again
  std::uint64_t storage_bytes = 0;       // storage that an allocation still has to get
  // The limit of an allocation that needs more bytes of tables at once. Such an allocation was only
  // counted; it can be carried out range by range.
  std::optional<std::uint64_t> limit;
  edit::ChangeFacts change;
  edit::FreshData data;
};

// The number that identifies the base of a pull in a side file; 0 if there is none.
[[nodiscard]] std::uint64_t pull_argument(const graph::Node* base);

// The storage that a raw image lacks. Error: `refused` for a window of a file, and for a block
// device, whose storage cannot be seen.
[[nodiscard]] Result<Pull> plan_allocation(const raw::Image& image, const Allocation& allocation);

// `transaction` is of the image's file, empty, and gets the changes of metadata. It gets none if
// the image already has the base as backing file, or already has none. A transaction that only
// counts gets the numbers of an allocation, and nothing to carry out. `chain` is that of the image.
// Both outlive the result. Errors: `refused` if the image is damaged, dirty or encrypted, has an
// external data file or (without `force`) snapshots that would read different data, or if a block
// device is too small (with the size needed).
[[nodiscard]] Result<Pull> plan_pull(edit::Transaction& transaction, const graph::Chain& chain,
                                     const PullOptions& options);

}  // namespace coldchain::ops
