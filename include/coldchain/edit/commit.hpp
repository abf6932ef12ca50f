// SPDX-License-Identifier: MIT
// The one door through which an image is changed: a transaction becomes a pending side file, the
// side file is carried out, and is kept for an undo or removed. Whatever stops this on the way, the
// image is no worse than before, and resume() goes on or goes back.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::edit {

// Returns the path of the undo file, or nothing where none is kept. The image's locks are held.
// Order: 1. side file, flush; 2. its state, flush; 3. image, phase by phase (recovery.hpp); 4. the
// state `done`, flush; 5. its name. Where 3 fails, the image is put back; an error that could not
// be put back says so.
[[nodiscard]] Result<std::optional<std::string>> commit(const Transaction& transaction,
                                                        io::WritableTarget& image,
                                                        const SideFiles& side_files,
                                                        const ChangeFacts& change);

// Whether a kept side file beside the image says that its change left clusters counted which may be
// lost data. One that may not be read might say so.
[[nodiscard]] Result<bool> has_kept_clusters(const io::File& image, const SideFiles& side_files);

enum class Resumed {
  nothing_pending,
  nothing_changed,  // the side file was never finished: it is removed
  finished,
  abandoned,
};
struct ResumeOutcome {
  Resumed resumed{};
  std::string verb{};                      // of the pending change
  std::optional<std::string> undo_file{};  // where it is kept, if it is
};

// How many corruptions a check counts in an image. Bytes alone do not tell that nobody wrote
// between a crash and now: who reuses what a change has freed may leave just the bytes that were
// there before. So what a roll would leave is counted before anything is written.
using CountCorruptions = std::function<Result<std::uint64_t>(const io::File& image)>;

// Finishes what is pending, or gives it up.
[[nodiscard]] Result<ResumeOutcome> resume(io::WritableTarget& image, const SideFiles& side_files,
                                           bool abandon, const CountCorruptions& count);

// Puts back what the kept side file `undo_file` says, if nobody has written to the image since. It
// can be interrupted and called again. Refused while something is pending.
[[nodiscard]] Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                                io::WritableTarget& image, const SideFiles& side_files,
                                const CountCorruptions& count);

}  // namespace coldchain::edit
