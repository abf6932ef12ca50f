// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/edit/recovery.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::string_view undo_verb = "undo ";

// What a person can do about a side file that leads nowhere.
std::string way_out(const SideFiles& side_files) {
  return fmt::format(
      "'coldchain check' says how the image is; if it is as it should be, rename {} to {}",
      to_shell_word(side_files.pending_path()), to_shell_word(side_files.given_up_path()));
}

Error stuck(Error error, const SideFiles& side_files) {
  error.message = fmt::format("{}: {}. Nothing was written. {}", side_files.pending_path(),
                              error.message, way_out(side_files));
  return error;
}

// Of the marker of an undo: it can be ended by its undo file alone.
Error undo_pending(const JournalFacts& facts, const SideFiles& side_files) {
  const std::string& verb = facts.change.verb;
  const bool is_cut = verb.size() == ChangeFacts::most_verb_bytes;
  const std::string path =
      verb.starts_with(undo_verb) ? verb.substr(undo_verb.size()) : std::string("its file");
  return {ErrorCode::refused,
          fmt::format("an undo was interrupted: run it again, of the file that was {}{}. Without "
                      "that file: {}",
                      to_shell_word(path), is_cut ? "…" : "", way_out(side_files)),
          0};
}

// And about one that was carried out in part.
Error unfinished(Error error, bool goes_back, const SideFiles& side_files) {
  error.message =
      fmt::format("{}. {} keeps what is left to do; 'coldchain resume' {}", error.message,
                  side_files.pending_path(),
                  goes_back ? "goes on going back" : "goes on or, with --abandon, goes back");
  return error;
}

// The side file of a change that is done is kept or removed. Returns where it is kept.
Result<std::optional<std::string>> put_away(const Journal& journal, const SideFiles& side_files) {
  const ChangeFacts& change = journal.facts().change;
  const bool has_kept = change.kept_clusters != 0;
  if (change.keeps_undo || has_kept)
    return TRY(side_files.keep_pending(has_kept));
  TRY(side_files.remove_pending());
  return std::nullopt;
}

Result<std::optional<std::string>> finish(Journal& journal, const io::WritableFile& image,
                                          const SideFiles& side_files) {
  TRY(journal.set_state(JournalState::done, image.status().modified));
  return put_away(journal, side_files);
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

// The pending side file as it was opened, with its journal.
struct Pending {
  std::unique_ptr<io::WritableFile> file;
  std::optional<Journal> journal;  // nothing where it was never finished
};

Result<Pending> open_pending(const SideFiles& side_files, const io::File& image) {
  Pending pending;
  pending.file = TRY(side_files.open_pending());
  if (TRY(Journal::is_incomplete(*pending.file)))
    return pending;
  pending.journal = TRY(Journal::open(*pending.file));
  TRY(check_identity(pending.journal->facts(), image));
  return pending;
}

// Of a change that is done, nobody may have written to the image since. What going back has begun
// to write changes that time, too.
Result<void> check_unmodified(const Journal& journal, const io::File& image, bool may_have_begun) {
  const bool is_as_it_was = image.status().kind != io::FileKind::regular ||
                            journal.image_modified() == io::Timestamp{} ||
                            journal.image_modified() == image.status().modified;
  if (is_as_it_was || (may_have_begun && !TRY(is_carried_out(journal, image))))
    return {};
  return fail(ErrorCode::refused,
              "the image has been modified since; what was written then would be damaged");
}

// Whether a roll leaves what the change says that it leaves: nobody has written since.
Result<void> check_roll(const Journal& journal, const io::File& image, bool is_forward,
                        const CountCorruptions& count) {
  const auto result = TRY(result_of_roll(journal, image, is_forward));
  const ChangeFacts& change = journal.facts().change;
  const std::uint64_t expected = is_forward ? change.corruptions_after : change.corruptions_before;
  const std::uint64_t found = TRY(count(*result));
  if (found > expected)
    return fail(ErrorCode::refused,
                fmt::format("it would leave {} corruptions instead of {}: somebody has written to "
                            "the image meanwhile",
                            found, expected));
  return {};
}

Result<void> mark_undo(const io::File& image, const SideFiles& side_files, std::uint64_t nonce,
                       const std::string& undo_path) {
  const std::unique_ptr<io::WritableFile> file = TRY(side_files.create_pending());
  const Result<Journal> journal =
      Journal::create(*file, Transaction(image), image.status().lasting_identity,
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
  const Result<Pending> pending = open_pending(side_files, image);
  if (!pending)
    return fail(stuck(pending.error(), side_files));
  const bool is_begun = pending->journal.has_value();
  if (is_begun && pending->journal->facts().change.undoes == 0)
    return fail(
        ErrorCode::refused,
        fmt::format("another change is pending: '{}'; 'coldchain resume' goes on or goes back",
                    to_terminal(pending->journal->facts().change.verb)));
  if (is_begun && pending->journal->facts().change.undoes != journal.facts().nonce)
    return fail(undo_pending(pending->journal->facts(), side_files));
  // A copy of the undo file may say that it is done: the image is what tells how far it came.
  if (is_begun)
    return true;
  TRY(side_files.remove_pending());
  return false;
}

// From here on it only goes back, whoever is asked to go on.
Result<void> go_back(Journal& journal, io::WritableFile& image) {
  TRY(journal.set_state(JournalState::undoing, journal.image_modified()));
  TRY(roll_back(journal, image));
  return journal.set_state(JournalState::undone, {});
}

// Whether the clusters to which nothing refers in the image may be what this file knows of.
bool may_tell_of_kept(const SideFiles::Found& found, const SideFiles& side_files,
                      const io::File& image) {
  const Result<std::unique_ptr<io::File>> file = side_files.read(found.name);
  const Result<JournalHead> head = file ? Journal::read_head(**file) : fail(file.error());
  if (!head)
    return found.is_by_name || head.error().code == ErrorCode::permission_denied ||
           head.error().code == ErrorCode::io_error;
  return (found.is_by_name || is_of(head->facts, image)) && head->state != JournalState::undone &&
         head->facts.change.kept_clusters != 0;
}

}  // namespace

Result<std::optional<std::string>> commit(const Transaction& transaction, io::WritableTarget& image,
                                          const SideFiles& side_files, const ChangeFacts& change) {
  Result<std::unique_ptr<io::WritableFile>> file = side_files.create_pending();
  if (!file)
    return fail(with_context(file.error(),
                             "nothing was changed: the folder of the image must have room for a "
                             "side file, and be writable"));
  Result<Journal> journal =
      Journal::create(**file, transaction, image.file->status().lasting_identity, change);
  if (!journal) {
    (void)side_files.remove_pending();
    return fail(with_context(journal.error(), fmt::format("nothing was changed; the side file {}",
                                                          side_files.pending_path())));
  }
  if (const Result<void> done = roll_forward(*journal, *image.file); !done) {
    if (roll_back(*journal, *image.file) && side_files.remove_pending())
      return fail(with_context(done.error(), "the image was put back as it was"));
    return fail(unfinished(done.error(), false, side_files));
  }
  Result<std::optional<std::string>> kept = finish(*journal, *image.file, side_files);
  if (!kept)
    return fail(with_context(kept.error(),
                             fmt::format("the image is changed, but {} could not be put away; "
                                         "'coldchain resume' tries again",
                                         side_files.pending_path())));
  return kept;
}

Result<bool> has_kept_clusters(const io::File& image, const SideFiles& side_files) {
  const std::vector<SideFiles::Found> found = TRY(side_files.find_all());
  return std::any_of(found.begin(), found.end(), [&](const SideFiles::Found& file) {
    return may_tell_of_kept(file, side_files, image);
  });
}

Result<ResumeOutcome> resume(io::WritableTarget& image, const SideFiles& side_files, bool abandon,
                             const CountCorruptions& count) {
  TRY(side_files.finish_keeping());
  if (!TRY(side_files.has_pending()))
    return ResumeOutcome{};
  Result<Pending> pending = open_pending(side_files, *image.file);
  if (!pending)
    return fail(stuck(pending.error(), side_files));
  if (!pending->journal) {
    TRY(side_files.remove_pending());
    return ResumeOutcome{Resumed::nothing_changed};
  }
  Journal& journal = *pending->journal;
  const std::string verb = to_terminal(journal.facts().change.verb);
  if (journal.facts().change.undoes != 0)
    return fail(undo_pending(journal.facts(), side_files));
  const bool goes_back = abandon || journal.state() == JournalState::undoing ||
                         journal.state() == JournalState::undone;
  // Of what is done only the name is missing, whatever was written since.
  if (journal.state() == JournalState::done && !goes_back)
    return ResumeOutcome{Resumed::finished, verb, TRY(put_away(journal, side_files))};
  if (journal.state() != JournalState::undone) {
    Result<void> sound =
        check_unmodified(journal, *image.file, journal.state() == JournalState::undoing);
    if (sound)
      sound = check_roll(journal, *image.file, !goes_back, count);
    if (!sound && journal.state() == JournalState::done)
      return fail(with_context(sound.error(),
                               fmt::format("'{}' is done, and cannot be taken back any more; "
                                           "without --abandon, 'coldchain resume' ends it",
                                           verb)));
    if (!sound)
      return fail(stuck(sound.error(), side_files));
    if (const Result<void> done =
            goes_back ? go_back(journal, *image.file) : roll_forward(journal, *image.file);
        !done)
      return fail(unfinished(done.error(), goes_back, side_files));
  }
  if (!goes_back)
    return ResumeOutcome{Resumed::finished, verb, TRY(finish(journal, *image.file, side_files))};
  TRY(side_files.remove_pending());
  return ResumeOutcome{Resumed::abandoned, verb};
}

Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                  io::WritableTarget& image, const SideFiles& side_files,
                  const CountCorruptions& count) {
  Journal journal = TRY(Journal::open(undo_file));
  TRY(check_identity(journal.facts(), *image.file));
  if (journal.state() == JournalState::applying)
    return fail(ErrorCode::refused,
                "is of a change that is not finished; 'coldchain resume' goes on or goes back");
  const bool is_marked = TRY(take_marker(journal, *image.file, side_files));
  if (journal.state() == JournalState::undone) {
    if (is_marked)
      return side_files.remove_pending();
    return fail(ErrorCode::refused, "has been undone already");
  }
  if (!is_marked && journal.state() == JournalState::undoing)
    return fail(ErrorCode::refused,
                "its undo was interrupted, and has been given up since: what was written then "
                "would be damaged");
  Result<void> sound = check_unmodified(journal, *image.file, is_marked);
  if (sound)
    sound = check_roll(journal, *image.file, false, count);
  if (!sound)
    return fail(is_marked ? stuck(sound.error(), side_files) : sound.error());
  if (!is_marked)
    TRY(mark_undo(*image.file, side_files, journal.facts().nonce, undo_path));
  if (const Result<void> done = go_back(journal, *image.file); !done)
    return fail(with_context(done.error(), "is not undone yet; the same command goes on"));
  return side_files.remove_pending();
}

}  // namespace coldchain::edit
