// SPDX-License-Identifier: MIT
// Carries out a journal, forward or back, from any point that a former attempt has reached. Each
// sector that the journal names must hold one of its recorded contents. Otherwise another program
// has written to the image, and nothing is written. A second run changes nothing. This file handles
// only bytes; the caller has checked that the image may be written.
#pragma once

#include <memory>

#include <coldchain/edit/journal.hpp>

namespace coldchain::edit {

// The image as it would be after either direction, without a write. `image` outlives the result.
[[nodiscard]] Result<std::unique_ptr<io::File>> result_of_roll(
    std::shared_ptr<const Journal> journal, const io::File& image, bool is_forward);

// Whether the phases before `end` are carried out, all of them.
[[nodiscard]] Result<bool> has_reached(const Journal& journal, const io::File& image, Phase end);

// Whether anything of that phase, or of a later one, is carried out.
[[nodiscard]] Result<bool> has_begun(const Journal& journal, const io::File& image, Phase phase);

// Order of writes: the file grows; then phase by phase, a flush after each.
[[nodiscard]] Result<void> roll_forward(const Journal& journal, io::WritableFile& image);
// The phases before `end` alone.
[[nodiscard]] Result<void> roll_forward_until(const Journal& journal, io::WritableFile& image,
                                              Phase end);

// Order of writes: phase by phase from the last to the first, with a flush after each; then the
// file is truncated to its former size, but not below `image_end`, and not if another program has
// appended to it. Data after that size is not written, because there may be no room for it.
[[nodiscard]] Result<void> roll_back(const Journal& journal, io::WritableFile& image,
                                     std::uint64_t image_end = 0);

}  // namespace coldchain::edit
