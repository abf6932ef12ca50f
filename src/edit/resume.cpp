// SPDX-License-Identifier: MIT
#include "open_pending.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/edit/trust.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

Result<std::optional<std::string>> finish(Journal& journal, const io::WritableFile& image,
                                          const SideFiles& side_files) {
  TRY(journal.set_state(JournalState::done, image.status().modified));
  return put_away(journal, side_files);
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
                "clusters that the change allocated are in use: another program has written to the "
                "image since");
  return check_roll(journal, image, false, examine);
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
  // Until the base has all, the top of a commit stays as it was: it is not written to here, either,
  // so that whoever goes on with the base, where this is stopped, finds the same top.
  const bool is_untouched =
      is_commit_top(change.operation) && image.size() == journal.facts().size_before &&
      (journal.state() == JournalState::applying || journal.state() == JournalState::writing);
  // Of what went back only the side file is left, whatever was written since.
  if (journal.state() != JournalState::undone && !is_untouched) {
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
  const Result<std::unique_ptr<io::File>> file = side_files.read(found);
  const Result<JournalHead> head = file ? Journal::read_head(**file) : fail(file.error());
  // What is no journal says nothing of the image, unless those can have written it who change it.
  const bool is_no_file = !file && file.error().code == ErrorCode::refused;
  const bool is_foreign =
      file && belief_in(authorship_of((*file)->status(), side_files.image_owner()), false) !=
                  Belief::believed;
  if (!head && (is_no_file || is_foreign))
    return false;
  if (!head)
    return found.is_by_name || head.error().code == ErrorCode::permission_denied ||
           head.error().code == ErrorCode::io_error;
  return (found.is_by_name || is_of(head->facts, image)) && head->state != JournalState::undone &&
         head->facts.change.kept_clusters != 0;
}

}  // namespace

Result<std::unique_ptr<io::File>> former_view(const io::File& image, const SideFiles& side_files,
                                              const Examine& examine) {
  if (!TRY(side_files.has_pending()))
    return nullptr;
  const auto pending = std::make_shared<const Pending>(TRY(open_pending(side_files, image)));
  if (!pending->journal)
    return nullptr;
  const Journal& journal = *pending->journal;
  if (const Result<std::uint64_t> sound = check_goes_back(journal, image, examine); !sound)
    return fail(is_final(sound.error()) ? only_given_up(sound.error(), side_files) : sound.error());
  return result_of_roll(std::shared_ptr<const Journal>(pending, &journal), image, false);
}

Result<Resumed> give_up(io::WritableFile& image, const SideFiles& side_files,
                        const ChangeFacts& change, const FreshData& data, const Examine& examine) {
  Result<Pending> pending = open_begun(side_files, image, change);
  const Result<void> same =
      pending ? check_data(data, *pending->journal, image) : fail(pending.error());
  const Result<std::uint64_t> image_end =
      same ? check_roll(*pending->journal, image, false, examine) : fail(same.error());
  if (!image_end)
    return is_final(image_end.error()) ? leave(side_files) : fail(image_end.error());
  // Not `undoing`: who finds references to the data must compare it first.
  if (const Result<void> done = roll_back(*pending->journal, image, *image_end); !done)
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

Result<ResumeOutcome> resume(io::WritableFile& image, const SideFiles& side_files, bool abandon,
                             const Examine& examine) {
  TRY(side_files.finish_keeping());
  if (!TRY(side_files.has_pending()))
    return ResumeOutcome{};
  Pending pending = TRY(open_pending(side_files, image));
  if (!pending.journal) {
    TRY(side_files.remove_pending());
    return ResumeOutcome{.resumed = Resumed::nothing_changed};
  }
  Journal& journal = *pending.journal;
  const std::string verb = to_terminal(journal.facts().change.verb);
  if (journal.facts().change.undoes != 0)
    return fail(undo_pending(journal.facts(), side_files));
  const bool is_going_back =
      journal.state() == JournalState::undoing || journal.state() == JournalState::undone;
  bool goes_back = abandon || is_going_back;
  // What is below may show something else by now: the link that the image has stays.
  if (journal.facts().change.operation == Operation::reparent && !is_going_back)
    goes_back = !TRY(has_begun(journal, image, Phase::conclude));
  // Of what is done only the name is missing, whatever was written since.
  if (journal.state() == JournalState::done && (!goes_back || has_data(journal)) &&
      !is_part(journal))
    return ResumeOutcome{.resumed = Resumed::finished,
                         .verb = verb,
                         .operation = journal.facts().change.operation,
                         .argument = journal.facts().change.argument,
                         .undo_file = TRY(put_away(journal, side_files))};
  if (has_data(journal))
    return resume_data(journal, image, side_files, goes_back, examine);
  if (journal.state() != JournalState::undone) {
    const Result<void> unmodified =
        check_unmodified(journal, image, journal.state() == JournalState::undoing);
    const Result<std::uint64_t> image_end =
        unmodified ? check_roll(journal, image, !goes_back, examine) : fail(unmodified.error());
    if (!image_end && journal.state() == JournalState::done)
      return fail(with_context(image_end.error(),
                               fmt::format("'{}' is done and can no longer be rolled back; run "
                                           "'coldchain resume {}' without --abandon to finish it",
                                           verb, side_files.operand())));
    if (!image_end)
      return fail(stuck(image_end.error(), side_files));
    if (!goes_back)
      return finish_forward(journal, image, side_files);
    if (const Result<void> done = go_back(journal, image, 0); !done)
      return fail(unfinished(done.error(), true, side_files));
  }
  TRY(side_files.remove_pending());
  return ResumeOutcome{.resumed = Resumed::abandoned, .verb = verb};
}

}  // namespace coldchain::edit
