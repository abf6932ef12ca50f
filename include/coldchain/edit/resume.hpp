// SPDX-License-Identifier: MIT
// What became of a change that was stopped: going on, going back, giving it up; and undoing one
// that was done.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <coldchain/edit/commit.hpp>
#include <coldchain/edit/pending.hpp>

namespace coldchain::edit {

// Whether a kept side file beside the image says that its change left clusters counted which may be
// lost data. One that may not be read might say so.
[[nodiscard]] Result<bool> has_kept_clusters(const io::File& image, const SideFiles& side_files);

enum class Resumed {
  nothing_pending,
  nothing_changed,  // the side file was never finished: it is removed
  finished,
  abandoned,
  needs_plan,  // whoever plans the operation again, on former_view(), can commit it
  left,        // given up, and nothing put back, since others have written: clusters may leak
};
struct ResumeOutcome {
  Resumed resumed{};
  std::string verb{};  // of the pending change
  Operation operation{};
  std::uint64_t argument = 0;
  std::optional<std::string> undo_file{};  // where it is kept, if it is
};

// What a check says of an image. Bytes alone do not tell that nobody wrote between a crash and now:
// who reuses what a change has freed may leave just the bytes that were there before. So what a
// roll would leave is looked at before anything is written.
struct Examined {
  std::uint64_t corruptions = 0;
  std::uint64_t image_end = 0;  // bytes: up to here clusters count, or are referred to
};
using Examine = std::function<Result<Examined>(const io::File& image)>;

// What the image was before the change that is pending began, without writing to it; nothing where
// there is none. `image` outlives it. Refused where somebody has written to it since.
[[nodiscard]] Result<std::unique_ptr<io::File>> former_view(const io::File& image,
                                                            const SideFiles& side_files,
                                                            const Examine& examine);

// Of what needs a plan to be given up, since the image refers to copied data: goes back if that, as
// the same plan says, is still what was copied; else it is left.
[[nodiscard]] Result<Resumed> give_up(io::WritableFile& image, const SideFiles& side_files,
                                      const ChangeFacts& change, const FreshData& data,
                                      const Examine& examine);
// Where no such plan can be made any more.
[[nodiscard]] Result<Resumed> leave(const SideFiles& side_files);

// Finishes what is pending, or gives it up.
[[nodiscard]] Result<ResumeOutcome> resume(io::WritableFile& image, const SideFiles& side_files,
                                           bool abandon, const Examine& examine);

// Puts back what the kept side file `undo_file` says, if nobody has written to the image since. It
// can be interrupted and called again. Refused while something is pending.
[[nodiscard]] Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                                io::WritableFile& image, const SideFiles& side_files,
                                const Examine& examine);

}  // namespace coldchain::edit
