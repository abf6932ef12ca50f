// SPDX-License-Identifier: MIT
// The one door through which an image is changed: a transaction becomes a pending side file, the
// side file is carried out, and is kept for an undo or removed. Whatever stops this on the way, the
// image is no worse than before, and resume() goes on or goes back.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <coldchain/edit/fresh_data.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::edit {

// Returns the path of the undo file, or nothing where none is kept. The image's locks are held.
// Order: 1. side file, flush; 2. its state, flush; 3. image, phase by phase (recovery.hpp); 4. the
// state `done`, flush; 5. its name. Where 3 fails, the image is put back; an error that could not
// be put back says so. With `data`, that is written in 3, before the phase `link`, when its
// clusters count; the state `writing`, then `linking`, each with a flush, come before and after it.
// It goes on where a former attempt at the same change was stopped, and where it is stopped itself,
// what is done stays for the next one.
[[nodiscard]] Result<std::optional<std::string>> commit(const Transaction& transaction,
                                                        io::WritableFile& image,
                                                        const SideFiles& side_files,
                                                        const ChangeFacts& change,
                                                        const FreshData* data = nullptr);

// The same for one image of a change of several: its side file stays, and says that it is done,
// until resume() puts it away or it is removed. Of Operation::commit_base, nothing is done where it
// says so already.
[[nodiscard]] Result<void> commit_part(const Transaction& transaction, io::WritableFile& image,
                                       const SideFiles& side_files, const ChangeFacts& change,
                                       const FreshData& data);

// `refused` where the file system of a regular image has no room for what will be written.
[[nodiscard]] Result<void> check_room(const FreshData& data, const Transaction& transaction,
                                      const io::File& image, const SideFiles& side_files);

}  // namespace coldchain::edit
