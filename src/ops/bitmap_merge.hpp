// SPDX-License-Identifier: MIT
// Bitmaps of the layers that are committed become part of those of the base, by libvirt's rule: one
// that records in every layer above the base is merged into the base's, or added to it where
// neither the base nor what is below it has one of that name. qcow2.rst, "Bitmaps".
#pragma once

#include "image_editor.hpp"

#include <coldchain/graph/chain.hpp>
#include <coldchain/qcow2/bitmaps.hpp>

namespace coldchain::ops {

struct MergedBitmap {
  std::string name;
  std::uint8_t granularity_bits = 0;  // of the one at the top
  bool is_new = false;                // for the base
  std::vector<GuestRange> dirty;      // what the layers say: sorted, disjoint
};

// What the base, a layer of `chain`, gets. `refused` where a bitmap says more than can be kept in
// memory.
[[nodiscard]] Result<std::vector<MergedBitmap>> bitmaps_to_merge(const graph::Chain& chain,
                                                                 std::size_t base);

struct ChangedBitmaps {
  std::vector<std::string> marked;              // bitmaps that record
  std::optional<qcow2::Extension> extension{};  // that leads to another directory
};

// Makes the bitmaps of the base right for a disk of `disk_size`. Those that record get the bits of
// `changed`, which is sorted and disjoint, and of `merged`; those that are new are added. `image`
// is the base, and the editor is not finished yet.
[[nodiscard]] Result<ChangedBitmaps> change_bitmaps(edit::Transaction& transaction,
                                                    ImageEditor& editor, const qcow2::Image& image,
                                                    std::uint64_t disk_size,
                                                    const std::vector<MergedBitmap>& merged,
                                                    const std::vector<GuestRange>& changed);

// The last change of the header, when the editor is finished. `refused` where it has no room.
[[nodiscard]] Result<void> stage_bitmaps_extension(edit::Transaction& transaction,
                                                   const qcow2::Extension& extension);

}  // namespace coldchain::ops
