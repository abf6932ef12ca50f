// SPDX-License-Identifier: MIT
// Carrying out a journal, forward or back, from whatever point a former attempt has reached. Each
// sector that the journal names must hold one of the contents that it records; anything else means
// that somebody has written meanwhile, and nothing is written. Doing it again changes nothing.
// Only bytes: whether the image may be written to at all, the caller has made sure.
#pragma once

#include <memory>

#include <coldchain/edit/journal.hpp>

namespace coldchain::edit {

// Both ways as they would leave the image, without writing to it. `image` outlives the result.
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

// Order of writes: phase by phase from the last to the first, a flush after each; then the file is
// cut to its former size, but not before `image_end`, and not where somebody has appended to it.
// What lies behind that is not written: there may be no room for it.
[[nodiscard]] Result<void> roll_back(const Journal& journal, io::WritableFile& image,
                                     std::uint64_t image_end = 0);

}  // namespace coldchain::edit
