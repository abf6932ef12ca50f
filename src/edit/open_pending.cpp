// SPDX-License-Identifier: MIT
#include "open_pending.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/pending.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/edit/trust.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

std::string command_to_set_aside(const SideFiles& side_files) {
  return fmt::format("'{}' sets the file aside", side_files.set_aside_command());
}

// What a person can do about a journal that leads nowhere.
std::string way_out(const SideFiles& side_files) {
  return fmt::format("'coldchain check {}' tests the image; if it is sound, {}",
                     side_files.operand(), command_to_set_aside(side_files));
}

// The command in the journal of another user is that user's text.
std::string_view name_of(Operation operation) {
  switch (operation) {
    case Operation::none:
      return "repair or an undo";
    case Operation::pull:
      return "pull";
    case Operation::rebase:
      return "rebase";
    case Operation::commit_base:
    case Operation::commit_top:
    case Operation::commit_top_kept:
      return "commit";
    case Operation::allocate:
      return "allocation";
    case Operation::reparent:
      return "commit of the image below";
    case Operation::elsewhere:
      break;
  }
  return "change";
}

Error not_believed(const Authorship& authorship, Belief belief,
                   const std::optional<JournalHead>& head, const SideFiles& side_files) {
  const bool is_planned = head && is_planned_again(head->facts.change.operation);
  std::string message = fmt::format("{} is not believed: {}. Nothing was written. ",
                                    to_terminal(side_files.pending_path()),
                                    reason_for(belief, authorship, is_planned));
  if (head && belief == Belief::foreign)
    message += fmt::format("'{}coldchain resume {}' continues its change, a {}; ",
                           as_user(authorship.owner), side_files.operand(),
                           name_of(head->facts.change.operation));
  return {ErrorCode::permission_denied,
          message + "if the image is sound, " + command_to_set_aside(side_files), 0};
}

// It exists, but the caller may not read it.
Error not_readable(const SideFiles& side_files) {
  const Result<std::uint32_t> owner = side_files.owner_of_pending();
  if (!owner)
    return owner.error();
  return {
      ErrorCode::permission_denied,
      fmt::format(
          "{} exists and belongs to {}. You may not open it, so the pending change is unknown. "
          "Nothing was written. '{}coldchain resume {}' continues it; if the image is sound, {}",
          to_terminal(side_files.pending_path()), name_of_user(*owner), as_user(*owner),
          side_files.operand(), command_to_set_aside(side_files)),
      0};
}

// The marker of a journal that lies in a folder which was not searched.
PendingFile journal_elsewhere(const JournalFacts& marker, const SideFiles& side_files,
                              std::optional<JournalHead> head) {
  return {
      PendingKind::no_journal, std::move(head),
      Error{ErrorCode::refused,
            fmt::format("a change is pending, and its journal lies in {0} ({1} says so). Nothing "
                        "was written. 'coldchain resume --state-dir {0} {2}' continues it or, "
                        "with --abandon, rolls it back",
                        to_shell_word(marker.change.verb), to_terminal(side_files.pending_path()),
                        side_files.operand()),
            0}};
}

PendingFile no_journal(Error error, const SideFiles& side_files,
                       std::optional<JournalHead> head = std::nullopt) {
  if (const Result<std::uint32_t> owner = side_files.owner_of_pending())
    error.message += fmt::format(", and belongs to {}", name_of_user(*owner));
  return {PendingKind::no_journal, std::move(head), stuck(std::move(error), side_files)};
}

Result<PendingFile> look_at(const io::File& file, const io::File& image,
                            const SideFiles& side_files) {
  PendingFile found;
  const bool is_unfinished = TRY(Journal::is_incomplete(file));
  if (!is_unfinished) {
    Result<JournalHead> head = Journal::read_head(file);
    if (!head)
      return no_journal(head.error(), side_files);
    found.head = std::move(*head);
  }
  const Authorship authorship = authorship_of(file.status(), side_files.image_owner());
  const Belief belief =
      belief_in(authorship, found.head && is_planned_again(found.head->facts.change.operation));
  if (belief != Belief::believed) {
    found.kind = PendingKind::not_believed;
    found.error = not_believed(authorship, belief, found.head, side_files);
    return found;
  }
  found.kind = is_unfinished ? PendingKind::unfinished : PendingKind::believed;
  if (found.head) {
    if (const Result<void> same = check_identity(found.head->facts, image); !same)
      return no_journal(same.error(), side_files, std::move(found.head));
    if (found.head->facts.change.operation == Operation::elsewhere) {
      const JournalFacts marker = found.head->facts;
      if (!side_files.has_searched(marker))
        return journal_elsewhere(marker, side_files, std::move(found.head));
      // The journal comes after the marker, and goes before it.
      found = {PendingKind::unfinished, std::nullopt, std::nullopt};
    }
  }
  return found;
}

}  // namespace

Result<PendingFile> look_at_pending(const io::File& image, const SideFiles& side_files) {
  if (!TRY(side_files.has_pending()) && side_files.hidden())
    return PendingFile{PendingKind::not_believed, std::nullopt, side_files.hidden()};
  if (!TRY(side_files.has_pending()))
    return PendingFile{};
  const Result<std::unique_ptr<io::File>> file = side_files.read_pending();
  if (!file && file.error().code == ErrorCode::permission_denied)
    return PendingFile{PendingKind::not_believed, std::nullopt, not_readable(side_files)};
  return file ? look_at(**file, image, side_files) : no_journal(file.error(), side_files);
}

Result<std::optional<JournalHead>> read_pending(const io::File& image,
                                                const SideFiles& side_files) {
  PendingFile found = TRY(look_at_pending(image, side_files));
  if (found.error)
    return fail(*found.error);
  return std::move(found.head);
}

Result<void> check_nothing_pending(const io::File& image, const SideFiles& side_files) {
  const PendingFile found = TRY(look_at_pending(image, side_files));
  if (found.error)
    return fail(*found.error);
  if (found.kind == PendingKind::none)
    return {};
  return fail(ErrorCode::refused,
              fmt::format("a change is pending ({0}): 'coldchain resume {1}' continues it, "
                          "'coldchain resume --abandon {1}' rolls it back",
                          to_terminal(side_files.pending_path()), side_files.operand()));
}

Error stuck(Error error, const SideFiles& side_files) {
  error.message =
      fmt::format("{}: {}. Nothing was written. {}", to_terminal(side_files.pending_path()),
                  error.message, way_out(side_files));
  return error;
}

Error undo_pending(const JournalFacts& facts, const SideFiles& side_files) {
  const std::string& verb = facts.change.verb;
  const bool is_cut = verb.size() == ChangeFacts::most_verb_bytes;
  const std::string path =
      verb.starts_with(undo_verb) ? verb.substr(undo_verb.size()) : std::string("its file");
  return {ErrorCode::refused,
          fmt::format("an undo was interrupted: run 'coldchain undo' again with its undo file, "
                      "which was {}{}. Without that file: {}",
                      to_shell_word(path), is_cut ? "…" : "", way_out(side_files)),
          0};
}

Error unfinished(Error error, bool goes_back, const SideFiles& side_files) {
  error.message = fmt::format(
      "{}. {} keeps what is left to do; 'coldchain resume {}' {}", error.message,
      to_terminal(side_files.pending_path()), side_files.operand(),
      goes_back ? "continues the rollback" : "continues it or, with --abandon, rolls it back");
  return error;
}

Result<std::optional<std::string>> put_away(const Journal& journal, const SideFiles& side_files) {
  const ChangeFacts& change = journal.facts().change;
  const bool has_kept = change.kept_clusters != 0;
  if (change.keeps_undo || has_kept)
    return TRY(side_files.keep_pending(has_kept));
  TRY(side_files.remove_pending());
  return std::nullopt;
}

Error not_put_away(Error error, const SideFiles& side_files) {
  return with_context(std::move(error),
                      fmt::format("the image is changed, but {} could not be renamed or removed; "
                                  "run 'coldchain resume {}' to try again",
                                  to_terminal(side_files.pending_path()), side_files.operand()));
}

bool is_of(const JournalFacts& facts, const io::File& image) {
  // The number of a file system may be another after a boot.
  const io::FileIdentity& mine = image.status().lasting_identity;
  const bool is_device = image.status().kind == io::FileKind::block_device;
  return facts.image.inode == mine.inode && (!is_device || facts.image.device == mine.device);
}

Result<void> check_identity(const JournalFacts& facts, const io::File& image) {
  if (!is_of(facts, image))
    return fail(ErrorCode::refused, "belongs to another image than this one");
  return {};
}

bool has_data(const Journal& journal) {
  return has_data(journal.facts().change.operation);
}

Phase phase_after_data(const Journal& journal) {
  return is_commit_top(journal.facts().change.operation) ? Phase::announce : Phase::link;
}

bool is_part(const Journal& journal) {
  return journal.facts().change.operation == Operation::commit_base;
}

bool is_under_way(const Journal& journal) {
  return has_data(journal) &&
         (journal.state() == JournalState::applying || journal.state() == JournalState::writing ||
          journal.state() == JournalState::linking ||
          (journal.state() == JournalState::done && is_part(journal)));
}

Error only_given_up(Error error, const SideFiles& side_files) {
  error.message = fmt::format(
      "{}: {}. Nothing was written. Run 'coldchain resume --abandon {}', then start the change "
      "again",
      to_terminal(side_files.pending_path()), error.message, side_files.operand());
  return error;
}

Result<Pending> open_pending(const SideFiles& side_files, const io::File& image) {
  Pending pending;
  Result<std::unique_ptr<io::WritableFile>> file = side_files.open_pending();
  if (!file)
    return fail(file.error().code == ErrorCode::permission_denied
                    ? not_readable(side_files)
                    : stuck(file.error(), side_files));
  pending.file = std::move(*file);
  // The very file that is carried out is looked at.
  const PendingFile found = TRY(look_at(*pending.file, image, side_files));
  if (found.error)
    return fail(*found.error);
  if (found.kind == PendingKind::unfinished)
    return pending;
  Result<Journal> journal = Journal::open(*pending.file);
  if (!journal)
    return fail(stuck(journal.error(), side_files));
  pending.journal = std::move(*journal);
  return pending;
}

Result<void> check_unmodified(const Journal& journal, const io::File& image, bool may_have_begun) {
  const bool is_as_it_was = image.status().kind != io::FileKind::regular ||
                            journal.image_modified() == io::Timestamp{} ||
                            journal.image_modified() == image.status().modified;
  if (is_as_it_was || (may_have_begun && !TRY(has_reached(journal, image, end_of_phases))))
    return {};
  return fail(ErrorCode::refused,
              "the image has been modified since; the change would damage what was written");
}

Result<std::uint64_t> check_roll(const Journal& journal, const io::File& image, bool is_forward,
                                 const Examine& examine) {
  // The caller keeps the journal longer.
  const auto result =
      TRY(result_of_roll(std::shared_ptr<const Journal>(std::shared_ptr<const Journal>(), &journal),
                         image, is_forward));
  const ChangeFacts& change = journal.facts().change;
  const std::uint64_t expected = is_forward ? change.corruptions_after : change.corruptions_before;
  const Examined found = TRY(examine(*result));
  if (found.corruptions > expected)
    return fail(ErrorCode::refused, fmt::format("it would leave {} corruptions instead of {}: "
                                                "another program has written to the image since",
                                                found.corruptions, expected));
  return found.image_end;
}

Result<Pending> open_begun(const SideFiles& side_files, const io::File& image,
                           const ChangeFacts& change) {
  Result<Pending> pending = open_pending(side_files, image);
  if (!pending)
    return pending;
  const bool is_same = pending->journal && is_under_way(*pending->journal) &&
                       pending->journal->facts().change.operation == change.operation &&
                       pending->journal->facts().change.argument == change.argument;
  // Not `refused`: nothing that is said of this change is true of another one.
  if (!is_same)
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("another change is pending ({}): 'coldchain resume {}' continues it or, "
                    "with --abandon, rolls it back",
                    to_terminal(side_files.pending_path()), side_files.operand()));
  if (!is_same_plan(pending->journal->facts(), change.digest))
    return fail(ErrorCode::refused,
                fmt::format("the image or an image below it was changed after '{}' was interrupted "
                            "({}): run 'coldchain resume --abandon {}', then start again",
                            to_terminal(pending->journal->facts().change.verb),
                            to_terminal(side_files.pending_path()), side_files.operand()));
  return pending;
}

Result<void> check_data(const FreshData& data, Journal& journal, io::WritableFile& image) {
  if (!TRY(has_reached(journal, image, phase_after_data(journal))))
    return fail(ErrorCode::refused,
                "clusters that the change allocated are free again: another program has repaired "
                "the image since");
  FreshWriter checker(image, journal, data.ranges, FreshWriter::Mode::check);
  return data.write(checker);
}

bool is_final(const Error& error) {
  return error.code == ErrorCode::refused || error.code == ErrorCode::corrupt ||
         error.code == ErrorCode::unsupported || error.code == ErrorCode::too_large ||
         error.code == ErrorCode::not_this_format;
}

Result<void> go_back(Journal& journal, io::WritableFile& image, std::uint64_t image_end) {
  TRY(journal.set_state(JournalState::undoing, journal.image_modified()));
  TRY(roll_back(journal, image, image_end));
  return journal.set_state(JournalState::undone, {});
}

}  // namespace coldchain::edit
