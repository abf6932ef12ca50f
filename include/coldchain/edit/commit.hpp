// SPDX-License-Identifier: MIT
// This is the only way to change an image. commit() writes a transaction to a side file, carries
// the side file out, and keeps it for an undo or removes it. After an interruption at any moment,
// the image is no worse than before, and resume() continues the change or rolls it back.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <coldchain/edit/fresh_data.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::edit {

// Returns the path of the undo file, or nothing if none is kept. The caller holds the image's
// locks.
// Order: 1. side file, flush; 2. its state, flush; 3. image, phase by phase (recovery.hpp); 4. the
// state `done`, flush; 5. the side file is renamed or removed. If step 3 fails, the image is rolled
// back; the error says so if this fails, too. `data` is written in step 3, before the phase `link`,
// when its clusters have a refcount. The states `writing` and `linking`, each with a flush, come
// before and after it. A call continues a former attempt at the same change. If it is interrupted,
// the next call continues from there.
[[nodiscard]] Result<std::optional<std::string>> commit(const Transaction& transaction,
                                                        io::WritableFile& image,
                                                        const SideFiles& side_files,
                                                        const ChangeFacts& change,
                                                        const FreshData* data = nullptr);

// The same for one image of a change of several images. The side file stays in the state `done`
// until resume() renames or removes it. For Operation::commit_base, nothing is done if the state is
// `done` already.
[[nodiscard]] Result<void> commit_part(const Transaction& transaction, io::WritableFile& image,
                                       const SideFiles& side_files, const ChangeFacts& change,
                                       const FreshData& data);

// Error: `refused` if the file system of a regular image has no room for the data to be written.
[[nodiscard]] Result<void> check_room(const FreshData& data, const Transaction& transaction,
                                      const io::File& image, const SideFiles& side_files);

}  // namespace coldchain::edit
