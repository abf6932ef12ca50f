// SPDX-License-Identifier: MIT
// Continues an interrupted change, rolls it back or abandons it; and undoes a finished change.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <coldchain/edit/commit.hpp>
#include <coldchain/edit/pending.hpp>

namespace coldchain::edit {

// Whether an undo file beside the image records that its change kept clusters that may hold lost
// data. A file that cannot be read counts as such.
[[nodiscard]] Result<bool> has_kept_clusters(const io::File& image, const SideFiles& side_files);

enum class Resumed {
  nothing_pending,
  nothing_changed,  // the side file was never finished: it is removed
  finished,
  abandoned,
  needs_plan,  // plan the operation again, on former_view(), and commit it
  left,        // abandoned without a write, since others have written: clusters may leak
};
struct ResumeOutcome {
  Resumed resumed{};
  std::string verb{};  // of the pending change
  Operation operation{};
  std::uint64_t argument = 0;
  std::optional<std::string> undo_file{};  // where it is kept, if it is
};

// The result of a check. Bytes alone do not show that no other program wrote between a crash and
// now: a program that reuses freed clusters may write exactly the bytes that were there before.
// Therefore the result of a roll is checked before anything is written.
struct Examined {
  std::uint64_t corruptions = 0;
  std::uint64_t image_end = 0;  // bytes: the end of the last cluster with a refcount or a reference
};
using Examine = std::function<Result<Examined>(const io::File& image)>;

// The image as it was before the pending change, without a write; nothing if nothing is pending.
// `image` outlives the result. Error: `refused` if another program has written to the image since.
[[nodiscard]] Result<std::unique_ptr<io::File>> former_view(const io::File& image,
                                                            const SideFiles& side_files,
                                                            const Examine& examine);

// Abandons a change whose data the image refers to already. The change is rolled back if the data,
// by the same plan, is still what was copied; otherwise it is left.
[[nodiscard]] Result<Resumed> give_up(io::WritableFile& image, const SideFiles& side_files,
                                      const ChangeFacts& change, const FreshData& data,
                                      const Examine& examine);
// For a change whose plan cannot be made again.
[[nodiscard]] Result<Resumed> leave(const SideFiles& side_files);

// Finishes the pending change, or rolls it back.
[[nodiscard]] Result<ResumeOutcome> resume(io::WritableFile& image, const SideFiles& side_files,
                                           bool abandon, const Examine& examine);

// Undoes the change of `undo_file` if no other program has written to the image since. It can be
// interrupted and called again. Error: `refused` if a change is pending.
[[nodiscard]] Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                                io::WritableFile& image, const SideFiles& side_files,
                                const Examine& examine);

}  // namespace coldchain::edit
