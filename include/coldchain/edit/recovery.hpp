// SPDX-License-Identifier: MIT
// Carrying out a journal, forward or back, from whatever point a former attempt has reached. Each
// sector that the journal names must hold one of the contents that it records; anything else means
// that somebody has written meanwhile, and nothing is written. Doing it again changes nothing.
// Only bytes: whether the image may be written to at all, the caller has made sure.
#pragma once

#include <memory>

#include <coldchain/edit/journal.hpp>

namespace coldchain::edit {

// Both ways as they would leave the image, without writing to it.
[[nodiscard]] Result<std::unique_ptr<io::OverlayFile>> result_of_roll(const Journal& journal,
                                                                      const io::File& image,
                                                                      bool is_forward);

// Whether the image holds all of the change.
[[nodiscard]] Result<bool> is_carried_out(const Journal& journal, const io::File& image);

// Order of writes: the file grows; then phase by phase, a flush after each.
[[nodiscard]] Result<void> roll_forward(const Journal& journal, io::WritableFile& image);

// Order of writes: phase by phase from the last to the first, a flush after each; then the file is
// cut to its former size. What lies behind that is not written: there may be no room for it.
[[nodiscard]] Result<void> roll_back(const Journal& journal, io::WritableFile& image);

}  // namespace coldchain::edit
