// SPDX-License-Identifier: MIT
// Persistent bitmaps of an image record what a change writes for its guest: those that are enabled
// and sound, as QEMU does. In clusters that a bitmap has, bits are set before the data is written:
// one that is set too early says too much, never too little. Clusters that it gets come with the
// references to the data. qcow2.rst, "Bitmaps".
#pragma once

#include "image_editor.hpp"

#include <coldchain/qcow2/bitmaps.hpp>

namespace coldchain::ops {

// qcow2.rst, "Bitmap table": bit 0, where there is no cluster, says what all of its bits are.
inline constexpr std::uint64_t all_ones_flag = 1;

// Bitmaps of `image` that record.
[[nodiscard]] Result<std::vector<qcow2::Bitmap>> recording_bitmaps(const qcow2::Image& image);

// `refused` where one of the image's bitmaps has no room for a disk of that size.
[[nodiscard]] Result<void> check_bitmaps_reach(const qcow2::Image& image, std::uint64_t size);

// Sets the bits of `changed`, which is sorted and disjoint, in `bitmap`. New clusters of it come
// from the editor, which is not finished yet.
[[nodiscard]] Result<void> stage_dirty_bits(edit::Transaction& transaction, ImageEditor& editor,
                                            const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                                            const std::vector<GuestRange>& changed);

}  // namespace coldchain::ops
