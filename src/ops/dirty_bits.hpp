// SPDX-License-Identifier: MIT
// Persistent bitmaps of an image record what a change writes for its guest: those that are enabled
// and sound, as QEMU does. A bit that is set too early says too much, never too little. Clusters of
// bits that are new come with the references to data, before the header changes. If all bits of
// such a cluster become ones, none is needed: the entry says so. qcow2.rst, "Bitmaps".
#pragma once

#include "image_editor.hpp"

#include <coldchain/qcow2/bitmaps.hpp>

namespace coldchain::ops {

// qcow2.rst, "Bitmap table": bit 0, where there is no cluster, says what all of its bits are.
inline constexpr std::uint64_t all_ones_flag = 1;

// Bitmaps of `image` that record.
[[nodiscard]] Result<std::vector<qcow2::Bitmap>> recording_bitmaps(const qcow2::Image& image);
[[nodiscard]] bool is_recording(const qcow2::Bitmap& bitmap);

// That of this name, or null.
[[nodiscard]] const qcow2::Bitmap* find_bitmap(const std::vector<qcow2::Bitmap>& bitmaps,
                                               const std::string& name);

// Appends what a bitmap of `image` marks of the first `size` bytes, in order. `corrupt` where its
// table does not fit the disk, `refused` where it marks more ranges than are kept in memory.
[[nodiscard]] Result<void> add_dirty_ranges(const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                                            std::uint64_t size, std::vector<GuestRange>& dirty);

// Sets the bits from `first` up to `end`.
void set_bits(ByteSpan bytes, std::uint64_t first, std::uint64_t end);

// When bits are set in clusters that the bitmap has already.
enum class SetBits {
  before_data,      // of a commit, which overwrites data in place
  with_references,  // as late as possible: a rollback takes away those of others in these clusters
};

// Sets the bits of `changed`, which is sorted and disjoint, in `bitmap`. New clusters of it come
// from the editor, which is not finished yet.
[[nodiscard]] Result<void> stage_dirty_bits(edit::Transaction& transaction, ImageEditor& editor,
                                            const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                                            const std::vector<GuestRange>& changed, SetBits when);

}  // namespace coldchain::ops
