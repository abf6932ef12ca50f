// SPDX-License-Identifier: MIT
// Block-stream, offline: what the layers between an image and a base provide moves into the image,
// whose backing file becomes the base, or none. What is nowhere allocated stays so; a zero that
// hides data of the base becomes an explicit zero, as does what reads as zeros since a layer in
// between is shorter.
// What the guest reads through the image never changes: data go into clusters that nobody refers to
// yet; the tables that refer to them change when they are on the storage, and the link last of all.
// Only the image is written to.
// Allocate: the same, and places for what the layers below do not provide.
// Rebase: the backing file becomes another chain; what that has the same is not copied.
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
  const graph::Chain* onto = nullptr;  // instead: another chain that is below afterwards
  std::optional<BackingLink> link{};   // how it is recorded; without one there is none
  // Instead of all these: places for more than what the layers below provide.
  std::optional<Allocation> allocation{};
  bool force = false;  // also where an internal snapshot of the image reads what would go
  // Internal snapshots of the image that read through what goes get it, too, each for itself.
  bool fills_snapshots = false;
  bool detects_zeroes = false;  // data of the layers that go that is zeros takes no place
  Compressed compressed = Compressed::unpack;
  // The plan is not carried out: an allocation of more tables than a transaction stages is answered
  // all the same, with its figures.
  bool is_plan = false;
  unsigned workers = 1;
  Progress progress{};
};

struct Pull {
  Cost cost;
  std::vector<LayerStorage> not_needed;       // by the image, any more
  std::vector<std::string> snapshots;         // of the image, that read something else afterwards
  std::vector<std::string> filled_snapshots;  // that got what they read
  std::vector<std::string> bitmaps;           // of layers that go: they stay where they are
  std::uint64_t compressed_bytes = 0;         // in sectors that are copied as they are
  std::uint64_t recompressed_bytes = 0;       // in sectors of what is compressed anew
  std::uint64_t storage_bytes = 0;            // that the places of an allocation do not have yet
  // Of an allocation that needs more bytes of tables at once than this: it was only counted, and
  // can be carried out range by range.
  std::optional<std::uint64_t> limit;
  edit::ChangeFacts change;
  edit::FreshData data;
};

// By what a side file knows the base of a pull; 0 where there is none.
[[nodiscard]] std::uint64_t pull_argument(const graph::Node* base);

// Of a raw image, which has its places: what storage they lack. `refused` for a window of a file,
// and for a block device, whose storage cannot be seen.
[[nodiscard]] Result<Pull> plan_allocation(const raw::Image& image, const Allocation& allocation);

// `transaction` is of the image's file, empty, and gets the changes of metadata: none, where the
// image's backing file is the base already, or there is none; one that counts gets the figures of
// an allocation alone, and nothing to be carried out. `chain` is that of the image. Both outlive
// what is returned. Errors: `refused` for an image that is damaged, dirty or encrypted, has an
// external data file or (without `force`) snapshots that would read something else, or where a
// block device is too small (with the size needed).
[[nodiscard]] Result<Pull> plan_pull(edit::Transaction& transaction, const graph::Chain& chain,
                                     const PullOptions& options);

}  // namespace coldchain::ops
