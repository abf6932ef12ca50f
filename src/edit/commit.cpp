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

constexpr Phase end_of_phases{phase_count};

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

Error not_put_away(Error error, const SideFiles& side_files) {
  return with_context(std::move(error),
                      fmt::format("the image is changed, but {} could not be put away; 'coldchain "
                                  "resume' tries again",
                                  side_files.pending_path()));
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

bool has_data(const Journal& journal) {
  return journal.facts().change.operation != Operation::none;
}

// The first phase that comes after the data: with that, others see a change. The top of a commit is
// not touched at all before its base is done.
Phase phase_after_data(const Journal& journal) {
  return is_commit_top(journal.facts().change.operation) ? Phase::announce : Phase::link;
}

bool is_part(const Journal& journal) {
  return journal.facts().change.operation == Operation::commit_base;
}

// Whether whoever goes on must plan it again.
bool is_under_way(const Journal& journal) {
  return has_data(journal) &&
         (journal.state() == JournalState::applying || journal.state() == JournalState::writing ||
          journal.state() == JournalState::linking ||
          (journal.state() == JournalState::done && is_part(journal)));
}

// Of a change with data: whoever else writes finds a sound image at each moment of it, so it can
// end where it is.
Error only_given_up(Error error, const SideFiles& side_files) {
  error.message = fmt::format(
      "{}: {}. Nothing was written. 'coldchain resume --abandon' gives up what is "
      "left to do; then it can be started again",
      side_files.pending_path(), error.message);
  return error;
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
  if (is_as_it_was || (may_have_begun && !TRY(has_reached(journal, image, end_of_phases))))
    return {};
  return fail(ErrorCode::refused,
              "the image has been modified since; what was written then would be damaged");
}

// Whether a roll leaves what the change says that it leaves: nobody has written since. Returns
// where the image ends then.
Result<std::uint64_t> check_roll(const Journal& journal, const io::File& image, bool is_forward,
                                 const Examine& examine) {
  const auto result = TRY(result_of_roll(journal, image, is_forward));
  const ChangeFacts& change = journal.facts().change;
  const std::uint64_t expected = is_forward ? change.corruptions_after : change.corruptions_before;
  const Examined found = TRY(examine(*result));
  if (found.corruptions > expected)
    return fail(ErrorCode::refused,
                fmt::format("it would leave {} corruptions instead of {}: somebody has written to "
                            "the image meanwhile",
                            found.corruptions, expected));
  return found.image_end;
}

// A change whose data was being written: it must be the same.
Result<Pending> open_begun(const SideFiles& side_files, const io::File& image,
                           const ChangeFacts& change) {
  Result<Pending> pending = open_pending(side_files, image);
  if (!pending)
    return fail(stuck(pending.error(), side_files));
  const bool is_same = pending->journal && is_under_way(*pending->journal) &&
                       pending->journal->facts().change.operation == change.operation &&
                       pending->journal->facts().change.argument == change.argument;
  if (!is_same)
    return fail(ErrorCode::refused,
                fmt::format("another change is pending ({}): 'coldchain resume' goes on or goes "
                            "back",
                            side_files.pending_path()));
  if (pending->journal->facts().change.digest != change.digest)
    return fail(ErrorCode::refused,
                fmt::format("the image, or one below it, was changed since '{}' was interrupted: "
                            "'coldchain resume --abandon' gives it up, then start again",
                            to_terminal(pending->journal->facts().change.verb)));
  return pending;
}

// While the file is longer, others may write to what lies in clusters behind its former end: when
// it is cut again, whole clusters stay.
Result<void> make_whole(const FreshData& data, io::WritableFile& image) {
  if (image.status().kind != io::FileKind::regular || image.size() >= data.whole_size)
    return {};
  TRY(image.resize(data.whole_size));
  return image.flush();
}

Result<Pending> begin(const Transaction& transaction, io::WritableFile& image,
                      const SideFiles& side_files, const ChangeFacts& change,
                      const FreshData* data) {
  if (data != nullptr)
    TRY(check_room(*data, transaction, image, side_files));
  Pending pending;
  Result<std::unique_ptr<io::WritableFile>> file = side_files.create_pending();
  if (!file)
    return fail(with_context(file.error(),
                             "nothing was changed: the folder of the image must have room for a "
                             "side file, and be writable"));
  pending.file = std::move(*file);
  const Result<void> whole = data != nullptr ? make_whole(*data, image) : Result<void>{};
  const io::FileIdentity& identity = image.status().lasting_identity;
  Result<Journal> journal =
      whole ? Journal::create(*pending.file, transaction, identity, change) : fail(whole.error());
  if (!journal) {
    (void)side_files.remove_pending();
    return fail(with_context(journal.error(), fmt::format("nothing was changed; the side file {}",
                                                          side_files.pending_path())));
  }
  pending.journal = std::move(*journal);
  return pending;
}

// Whether all that was copied is still what it should be, and counted.
Result<void> check_data(const FreshData& data, Journal& journal, io::WritableFile& image) {
  if (!TRY(has_reached(journal, image, phase_after_data(journal))))
    return fail(ErrorCode::refused,
                "clusters that were taken are free again: somebody has repaired the image "
                "meanwhile");
  FreshWriter checker(image, journal, data.ranges, FreshWriter::Mode::check);
  return data.write(checker);
}

Result<void> write_data(const FreshData& data, Journal& journal, io::WritableFile& image) {
  TRY(roll_forward_until(journal, image, phase_after_data(journal)));
  if (journal.state() == JournalState::applying)
    TRY(journal.set_state(JournalState::writing, {}));
  FreshWriter writer(image, journal, data.ranges, FreshWriter::Mode::write);
  TRY(data.write(writer));
  return journal.set_state(JournalState::linking, {});
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

// From here on it only goes back, whoever is asked to go on. A repair gives back the file's size,
// too; of a change with data, others may have used what came behind it.
Result<void> go_back(Journal& journal, io::WritableFile& image, std::uint64_t image_end) {
  TRY(journal.set_state(JournalState::undoing, journal.image_modified()));
  TRY(roll_back(journal, image, image_end));
  return journal.set_state(JournalState::undone, {});
}

Result<ResumeOutcome> finish_forward(Journal& journal, io::WritableFile& image,
                                     const SideFiles& side_files) {
  const ChangeFacts& change = journal.facts().change;
  if (const Result<void> done = roll_forward(journal, image); !done)
    return fail(unfinished(done.error(), false, side_files));
  return ResumeOutcome{.resumed = Resumed::finished,
                       .verb = to_terminal(change.verb),
                       .operation = change.operation,
                       .argument = change.argument,
                       .undo_file = TRY(finish(journal, image, side_files))};
}

// Whether a change with data can go back, as nobody has written to the image since. Others take the
// lowest free clusters, too, so that what they write may be what the journal says: but the tables
// of a change that had not come so far can be only theirs.
Result<std::uint64_t> check_goes_back(const Journal& journal, const io::File& image,
                                      const Examine& examine) {
  const bool may_have_begun =
      journal.state() == JournalState::linking || journal.state() == JournalState::done;
  if (!may_have_begun && TRY(has_begun(journal, image, phase_after_data(journal))))
    return fail(ErrorCode::refused,
                "clusters that were taken are in use: somebody has written to the image meanwhile");
  return check_roll(journal, image, false, examine);
}

// Whether an error says that the image, or what is below it, is not what it was. All others may be
// gone the next time.
bool is_final(const Error& error) {
  return error.code == ErrorCode::refused || error.code == ErrorCode::corrupt ||
         error.code == ErrorCode::unsupported || error.code == ErrorCode::too_large ||
         error.code == ErrorCode::not_this_format;
}

Result<ResumeOutcome> resume_data(Journal& journal, io::WritableFile& image,
                                  const SideFiles& side_files, bool goes_back,
                                  const Examine& examine) {
  const bool is_linking = journal.state() == JournalState::linking;
  if (is_linking && !is_part(journal) && has_reached(journal, image, end_of_phases).value_or(false))
    return finish_forward(journal, image, side_files);
  const ChangeFacts& change = journal.facts().change;
  ResumeOutcome outcome{.resumed = Resumed::needs_plan,
                        .verb = to_terminal(change.verb),
                        .operation = change.operation,
                        .argument = change.argument};
  const bool has_begun_to_link =
      journal.state() == JournalState::done ||
      (is_linking && has_begun(journal, image, phase_after_data(journal)).value_or(false));
  // Each moment of a commit is sound for whoever reads through the top: where the top lets go of
  // something, the base has it; and what the base holds now, nobody sees who looks through the top.
  if (goes_back && has_begun_to_link && (is_part(journal) || is_commit_top(change.operation))) {
    outcome.resumed = TRY(leave(side_files));
    return outcome;
  }
  // What is referred to already may have been written to: the plan tells.
  if (!goes_back || has_begun_to_link)
    return outcome;
  // Of what went back only the side file is left, whatever was written since.
  if (journal.state() != JournalState::undone) {
    const Result<std::uint64_t> image_end = check_goes_back(journal, image, examine);
    if (!image_end && !is_final(image_end.error()))
      return fail(image_end.error());
    if (!image_end) {
      outcome.resumed = TRY(leave(side_files));
      return outcome;
    }
    if (const Result<void> done = go_back(journal, image, *image_end); !done)
      return fail(unfinished(done.error(), true, side_files));
  }
  TRY(side_files.remove_pending());
  outcome.resumed = Resumed::abandoned;
  return outcome;
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

// Up to the state `done`.
Result<Pending> carry_out(const Transaction& transaction, io::WritableTarget& image,
                          const SideFiles& side_files, const ChangeFacts& change,
                          const FreshData* data) {
  Result<Pending> pending = data != nullptr && TRY(side_files.has_pending())
                                ? open_begun(side_files, *image.file, change)
                                : begin(transaction, *image.file, side_files, change, data);
  if (!pending)
    return fail(pending.error());
  Journal& journal = *pending->journal;
  // What others may have written to since, too.
  if (journal.state() == JournalState::done) {
    if (const Result<void> sound = check_data(*data, journal, *image.file); !sound)
      return fail(is_final(sound.error()) ? only_given_up(sound.error(), side_files)
                                          : unfinished(sound.error(), false, side_files));
    return pending;
  }
  if (data != nullptr && journal.state() == JournalState::linking) {
    if (const Result<void> sound = check_data(*data, journal, *image.file); !sound)
      return fail(is_final(sound.error()) ? only_given_up(sound.error(), side_files)
                                          : unfinished(sound.error(), false, side_files));
  } else if (data != nullptr) {
    // What became of the base, its own message tells.
    if (const Result<void> done = write_data(*data, journal, *image.file); !done)
      return fail(is_commit_top(change.operation) ? done.error()
                                                  : unfinished(done.error(), false, side_files));
  }
  if (const Result<void> done = roll_forward(journal, *image.file); !done) {
    // What was copied is not thrown away.
    if (data == nullptr && roll_back(journal, *image.file) && side_files.remove_pending())
      return fail(with_context(done.error(), "the image was put back as it was"));
    return fail(unfinished(done.error(), false, side_files));
  }
  if (const Result<void> done =
          journal.set_state(JournalState::done, image.file->status().modified);
      !done)
    return fail(not_put_away(done.error(), side_files));
  return pending;
}

}  // namespace

Result<std::optional<std::string>> commit(const Transaction& transaction, io::WritableTarget& image,
                                          const SideFiles& side_files, const ChangeFacts& change,
                                          const FreshData* data) {
  const Pending pending = TRY(carry_out(transaction, image, side_files, change, data));
  Result<std::optional<std::string>> kept = put_away(*pending.journal, side_files);
  if (!kept)
    return fail(not_put_away(kept.error(), side_files));
  return kept;
}

Result<void> commit_part(const Transaction& transaction, io::WritableTarget& image,
                         const SideFiles& side_files, const ChangeFacts& change,
                         const FreshData& data) {
  TRY(carry_out(transaction, image, side_files, change, &data));
  return {};
}

Result<void> check_room(const FreshData& data, const Transaction& transaction,
                        const io::File& image, const SideFiles& side_files) {
  if (image.status().kind != io::FileKind::regular)
    return {};
  const std::vector<HostRange>& places = data.places.empty() ? data.ranges : data.places;
  const std::uint64_t needed = TRY(io::bytes_without_storage(image, places)) -
                               TRY(io::bytes_without_storage(image, data.zeros)) +
                               transaction.changed_bytes() + TRY(Journal::size_of(transaction));
  const std::uint64_t available = TRY(side_files.available_bytes());
  if (needed > available)
    return fail(ErrorCode::refused,
                fmt::format("nothing was changed: {} bytes are to be written, and the file system "
                            "has room for {}",
                            needed, available));
  return {};
}

Result<std::optional<JournalHead>> read_pending(const io::File& image,
                                                const SideFiles& side_files) {
  if (!TRY(side_files.has_pending()))
    return std::nullopt;
  const Result<Pending> pending = open_pending(side_files, image);
  if (!pending)
    return fail(stuck(pending.error(), side_files));
  return pending->journal ? std::optional(pending->journal->head()) : std::nullopt;
}

Result<std::unique_ptr<io::OverlayFile>> former_view(const io::File& image,
                                                     const SideFiles& side_files,
                                                     const Examine& examine) {
  if (!TRY(side_files.has_pending()))
    return nullptr;
  const Pending pending = TRY(open_pending(side_files, image));
  if (!pending.journal)
    return nullptr;
  if (const Result<std::uint64_t> sound = check_goes_back(*pending.journal, image, examine); !sound)
    return fail(only_given_up(sound.error(), side_files));
  return result_of_roll(*pending.journal, image, false);
}

Result<Resumed> give_up(io::WritableTarget& image, const SideFiles& side_files,
                        const ChangeFacts& change, const FreshData& data, const Examine& examine) {
  Result<Pending> pending = open_begun(side_files, *image.file, change);
  const Result<void> same =
      pending ? check_data(data, *pending->journal, *image.file) : fail(pending.error());
  const Result<std::uint64_t> image_end =
      same ? check_roll(*pending->journal, *image.file, false, examine) : fail(same.error());
  if (!image_end)
    return is_final(image_end.error()) ? leave(side_files) : fail(image_end.error());
  // Not `undoing`: who finds references to the data must compare it first.
  if (const Result<void> done = roll_back(*pending->journal, *image.file, *image_end); !done)
    return fail(unfinished(done.error(), true, side_files));
  TRY(side_files.remove_pending());
  return Resumed::abandoned;
}

// Each moment of a change with data is sound for whoever reads or writes, so that it may end
// anywhere.
Result<Resumed> leave(const SideFiles& side_files) {
  TRY(side_files.remove_pending());
  return Resumed::left;
}

Result<bool> has_kept_clusters(const io::File& image, const SideFiles& side_files) {
  const std::vector<SideFiles::Found> found = TRY(side_files.find_all());
  return std::any_of(found.begin(), found.end(), [&](const SideFiles::Found& file) {
    return may_tell_of_kept(file, side_files, image);
  });
}

Result<ResumeOutcome> resume(io::WritableTarget& image, const SideFiles& side_files, bool abandon,
                             const Examine& examine) {
  TRY(side_files.finish_keeping());
  if (!TRY(side_files.has_pending()))
    return ResumeOutcome{};
  Result<Pending> pending = open_pending(side_files, *image.file);
  if (!pending)
    return fail(stuck(pending.error(), side_files));
  if (!pending->journal) {
    TRY(side_files.remove_pending());
    return ResumeOutcome{.resumed = Resumed::nothing_changed};
  }
  Journal& journal = *pending->journal;
  const std::string verb = to_terminal(journal.facts().change.verb);
  if (journal.facts().change.undoes != 0)
    return fail(undo_pending(journal.facts(), side_files));
  const bool goes_back = abandon || journal.state() == JournalState::undoing ||
                         journal.state() == JournalState::undone;
  // Of what is done only the name is missing, whatever was written since.
  if (journal.state() == JournalState::done && (!goes_back || has_data(journal)) &&
      !is_part(journal))
    return ResumeOutcome{.resumed = Resumed::finished,
                         .verb = verb,
                         .operation = journal.facts().change.operation,
                         .argument = journal.facts().change.argument,
                         .undo_file = TRY(put_away(journal, side_files))};
  if (has_data(journal))
    return resume_data(journal, *image.file, side_files, goes_back, examine);
  if (journal.state() != JournalState::undone) {
    const Result<void> unmodified =
        check_unmodified(journal, *image.file, journal.state() == JournalState::undoing);
    const Result<std::uint64_t> image_end =
        unmodified ? check_roll(journal, *image.file, !goes_back, examine)
                   : fail(unmodified.error());
    if (!image_end && journal.state() == JournalState::done)
      return fail(with_context(image_end.error(),
                               fmt::format("'{}' is done, and cannot be taken back any more; "
                                           "without --abandon, 'coldchain resume' ends it",
                                           verb)));
    if (!image_end)
      return fail(stuck(image_end.error(), side_files));
    if (!goes_back)
      return finish_forward(journal, *image.file, side_files);
    if (const Result<void> done = go_back(journal, *image.file, 0); !done)
      return fail(unfinished(done.error(), true, side_files));
  }
  TRY(side_files.remove_pending());
  return ResumeOutcome{.resumed = Resumed::abandoned, .verb = verb};
}

Result<void> undo(io::WritableFile& undo_file, const std::string& undo_path,
                  io::WritableTarget& image, const SideFiles& side_files, const Examine& examine) {
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
  const Result<void> unmodified = check_unmodified(journal, *image.file, is_marked);
  const Result<std::uint64_t> image_end =
      unmodified ? check_roll(journal, *image.file, false, examine) : fail(unmodified.error());
  if (!image_end)
    return fail(is_marked ? stuck(image_end.error(), side_files) : image_end.error());
  if (!is_marked)
    TRY(mark_undo(*image.file, side_files, journal.facts().nonce, undo_path));
  if (const Result<void> done = go_back(journal, *image.file, 0); !done)
    return fail(with_context(done.error(), "is not undone yet; the same command goes on"));
  return side_files.remove_pending();
}

}  // namespace coldchain::edit
