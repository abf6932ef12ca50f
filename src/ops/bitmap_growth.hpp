// SPDX-License-Identifier: MIT
// Bitmaps of an image whose disk grows, as QEMU resizes them: the new part is not dirty. A table
// with too few entries gets more, where its clusters have room, else elsewhere. Its new size is
// right only with the new size of the disk, and the two lie in different sectors: in between,
// the header says that the bitmaps are out of date. QEMU block/qcow2-bitmap.c:
// qcow2_truncate_bitmaps_check(); qcow2.rst, "Bitmaps".
#pragma once

#include "image_editor.hpp"

#include <coldchain/qcow2/bitmaps.hpp>

namespace coldchain::ops {

// `refused` where a bitmap of `image`, which is the file `name`, was not closed, or would be too
// large for a disk of that size.
[[nodiscard]] Result<void> check_bitmaps_may_grow(const qcow2::Image& image,
                                                  const std::string& name, std::uint64_t size);

// The bitmaps of `image` for a disk of that size. The editor is not finished yet. If they differ
// from those of its directory, the caller places a new one.
[[nodiscard]] Result<std::vector<qcow2::Bitmap>> grow_bitmaps(edit::Transaction& transaction,
                                                              ImageEditor& editor,
                                                              const qcow2::Image& image,
                                                              std::uint64_t size);

}  // namespace coldchain::ops
