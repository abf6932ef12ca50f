// SPDX-License-Identifier: MIT
#include "open_pending.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/recovery.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

Result<void> mark_undo(const io::File& image, const SideFiles& side_files, std::uint64_t nonce,
                       const std::string& undo_path) {
  const Transaction nothing(image);
  const std::uint64_t bytes = TRY(Journal::size_of(nothing));
  const std::unique_ptr<io::WritableFile> file =
      TRY(side_files.create_pending(image, bytes, 0, false));
  const Result<Journal> journal =
      Journal::create(*file, nothing, image.status().lasting_identity,
                      {.verb = std::string(undo_verb) + undo_path, .undoes = nonce});
  if (!journal) {
    (void)side_files.remove_pending();
    return fail(journal.error());
  }
  return {};
}

// An undo file whose undo was interrupted is known by the marker, whatever its name is by now.
// Returns whether there is one.
Result<bool> take_marker(const Journal& journal, const io::File& image,
                         const SideFiles& side_files) {
  if (!TRY(side_files.has_pending()))
    return false;
  const Pending pending = TRY(open_pending(side_files, image));
  const bool is_begun = pending.journal.has_value();
  if (is_begun && pending.journal->facts().change.undoes == 0)
    return fail(
        ErrorCode::refused,
        fmt::format("another change is pending: '{}'; 'coldchain resume {}' continues it "
                    "or, with --abandon, rolls it back",
                    to_terminal(pending.journal->facts().change.verb), side_files.operand()));
  if (is_begun && pending.journal->facts().change.undoes != journal.facts().nonce)
    return fail(undo_pending(pending.journal->facts(), side_files));
  // A copy of the undo file may say that it is done: the image is what tells how far it came.
  if (is_begun)
    return true;
  TRY(side_files.remove_pending());
  return false;
}

}  // namespace

Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                  io::WritableFile& image, const SideFiles& side_files, const Examine& examine) {
  Journal journal = TRY(Journal::open(undo_file));
  TRY(check_identity(journal.facts(), image));
  const bool was_done = journal.state() == JournalState::done ||
                        journal.state() == JournalState::undoing ||
                        journal.state() == JournalState::undone;
  // A change that is planned again keeps nothing for an undo.
  if (!was_done || is_planned_again(journal.facts().change.operation))
    return fail(ErrorCode::refused,
                fmt::format("is of a change that is not finished; 'coldchain resume {}' continues "
                            "it or, with --abandon, rolls it back",
                            side_files.operand()));
  const bool is_marked = TRY(take_marker(journal, image, side_files));
  if (journal.state() == JournalState::undone) {
    if (is_marked)
      return side_files.remove_pending();
    return fail(ErrorCode::refused, "has been undone already");
  }
  if (!is_marked && journal.state() == JournalState::undoing)
    return fail(ErrorCode::refused,
                "its undo was interrupted and abandoned: to continue it now would damage what was "
                "written since");
  const Result<void> unmodified = check_unmodified(journal, image, is_marked);
  const Result<std::uint64_t> image_end =
      unmodified ? check_roll(journal, image, false, examine) : fail(unmodified.error());
  if (!image_end)
    return fail(is_marked ? stuck(image_end.error(), side_files) : image_end.error());
  if (!is_marked)
    TRY(mark_undo(image, side_files, journal.facts().nonce, undo_path));
  if (const Result<void> done = go_back(journal, image, 0); !done)
    return fail(
        with_context(done.error(), "is not undone yet; run the same command again to continue"));
  return side_files.remove_pending();
}

}  // namespace coldchain::edit
