// SPDX-License-Identifier: MIT
// resume: continues a change that was interrupted, or rolls it back.
#include "change.hpp"
#include "commit.hpp"
#include "host_path.hpp"
#include "option_values.hpp"
#include "pending_commit.hpp"
#include "pull.hpp"
#include "verb.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/plan.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

// What allows anything is given here, for this run: a journal says only what was asked for.
struct ResumeOptions {
  TargetOptions target;
  std::optional<std::string> format;
  std::optional<std::string> base;
  std::string base_format;
  std::string moved_base;
  std::vector<std::string> scan;
  bool force = false;
  bool unreadable_are_zeros = false;
  bool abandon = false;
  CopyOptions copy;
};

void options(CommandLine app, ResumeOptions& resume) {
  app.add_flag("--abandon", resume.abandon, "Roll back instead of continuing");
  app.add_flag("--force", resume.force,
               "Continue even if another image or an internal snapshot depends on what changes");
  app.add_option("-f,--format", resume.format, "Format of the image; probed if not given")
      .type_name("FMT");
  app.add_flag("--allow-probe", resume.target.policy.allow_probe,
               "Follow the links of an image whose format its overlay does not record");
  add_unreadable_option(app, resume.unreadable_are_zeros);
  app.add_option("--scan", resume.scan, "Look for images that depend on the base in DIR, too")
      .check(not_empty())
      .type_name("DIR");
  app.add_option("-b", resume.base, "For a rebase: the new backing file, as it was given")
      .type_name("BASE");
  app.add_option("-F", resume.base_format, "Its format, as it was given").type_name("FMT");
  app.add_option("--base", resume.moved_base, "The new path of a backing file that was moved")
      .check(not_empty())
      .type_name("PATH");
  add_undo_option(app, resume.target.folders);
  add_copy_options(app, resume.copy);
  add_target_options(app, resume.target);
  app.footer("Example: coldchain resume disk.qcow2");
}

std::string words_for(const edit::ResumeOutcome& outcome, const std::string& image,
                      const std::string& operand) {
  switch (outcome.resumed) {
    case edit::Resumed::nothing_pending:
      return fmt::format("Nothing is pending for {}.\n", image);
    case edit::Resumed::nothing_changed:
      return fmt::format("A change of {} had not begun; its journal is removed.\n", image);
    case edit::Resumed::finished:
      return fmt::format(
          "'{}' is finished{}.\n", to_terminal(outcome.verb),
          outcome.undo_file ? "; the former bytes are in " + to_terminal(*outcome.undo_file) : "");
    case edit::Resumed::needs_plan:
      return "";  // goes on
    case edit::Resumed::left:
      return fmt::format(
          "'{0}' is abandoned. {1} or an image below it has changed since, so nothing was rolled "
          "back. The clusters that were allocated for the copy may leak: run 'coldchain check "
          "{2}'.\n",
          outcome.verb, image, operand);
    case edit::Resumed::abandoned:
      return fmt::format("'{}' is rolled back; {} is as it was before.\n",
                         to_terminal(outcome.verb), image);
  }
  return "";
}

PullRequest request_for(const ResumeOptions& options, const edit::ResumeOutcome& outcome,
                        const io::FileIdentity& image) {
  PullRequest request;
  request.image = options.target.image;
  request.image_file = image;
  request.common.is_path = true;
  request.common.policy.root = options.target.policy.root;
  request.common.policy.sysroot = options.target.policy.sysroot;
  request.common.policy.allow_probe = options.target.policy.allow_probe;
  request.common.policy.moved_backing = options.moved_base;
  request.common.format = options.format;
  request.is_rebase = outcome.operation == edit::Operation::rebase;
  if (request.is_rebase) {
    request.base = options.base;
    request.base_format = options.base_format;
  } else if (outcome.operation == edit::Operation::allocate) {
    request.allocation = ops::parse_allocation(outcome.verb);
  } else {
    request.argument = outcome.argument;
    request.detects_zeroes = ops::has_option(outcome.verb, ops::detect_zeroes_option);
    request.compressed = ops::compressed_of(outcome.verb);
    request.fills_snapshots = ops::has_option(outcome.verb, ops::snapshots_option);
  }
  request.folders = options.target.folders;
  request.force = options.force;
  request.unreadable_are_zeros = options.unreadable_are_zeros;
  request.copy = options.copy;
  return request;
}

// Without the base. As long as the top is not written to, the commit has changed nothing that it
// reads: a copy of the base, from before or during the commit, shows the same data through it.
Result<ExitStatus> roll_back_top(const ResumeOptions& options, const Error& base_error,
                                 World& world) {
  return with_target(options.target, world, [&](ChangeTarget& top) -> Result<ExitStatus> {
    const auto pending = TRY(edit::read_pending(*top.image, top.side_files));
    const bool is_untouched = pending && edit::is_commit_top(pending->facts.change.operation) &&
                              (pending->state == edit::JournalState::applying ||
                               pending->state == edit::JournalState::writing) &&
                              top.image->size() == pending->facts.size_before;
    if (!is_untouched)
      return fail(base_error);
    TRY(edit::resume(*top.image, top.side_files, true, examine));
    const std::string image = to_terminal(options.target.image);
    TRY(world.out(fmt::format(
        "The commit is rolled back; {0} is as it was before. Its base was not found, and may hold "
        "a part of the committed data; {0} shows the same data over any copy of the base.\n",
        image)));
    return success;
  });
}

Result<ExitStatus> resume_commit(const ResumeOptions& options, const PendingCommit& commit,
                                 World& world) {
  const edit::ChangeFacts& change = commit.change;
  CommitRequest request;
  request.image = commit.top;
  request.image_file = commit.top_file;
  request.common.is_path = true;
  request.common.policy.root = options.target.policy.root;
  request.common.policy.sysroot = options.target.policy.sysroot;
  request.common.policy.allow_probe = options.target.policy.allow_probe;
  request.common.policy.moved_backing = options.moved_base;
  (commit.is_of_top ? request.common.format : request.base_format) = options.format;
  request.folders = options.target.folders;
  request.force = options.force;
  request.unreadable_are_zeros = options.unreadable_are_zeros;
  request.copy = options.copy;
  request.scan = options.scan;
  request.argument = commit.base;
  request.keeps = change.operation != edit::Operation::commit_top;
  request.detects_zeroes = ops::has_option(change.verb, ops::detect_zeroes_option);
  if (ops::has_option(change.verb, ops::merge_bitmaps_option))
    request.bitmaps = ops::BitmapRule::merge;
  if (options.abandon) {
    const Result<ExitStatus> rolled_back = give_up_commit(request, world);
    const bool lacks_base = !rolled_back && rolled_back.error().code == ErrorCode::not_found;
    return lacks_base && commit.is_of_top ? roll_back_top(options, rolled_back.error(), world)
                                          : rolled_back;
  }
  const ExitStatus status = TRY(run_commit(request, world));
  // Whatever a scan would find now, nobody has agreed to.
  if (ops::has_option(change.verb, ops::reparent_option))
    world.err(
        fmt::format("overlays that still name '{0}' read the same as before; 'coldchain commit "
                    "--reparent' points them at the base\n",
                    to_terminal(request.image)));
  return status;
}

Result<ExitStatus> resume_image(const ResumeOptions& options, World& world) {
  if (const auto commit = TRY(find_pending_commit(options.target, world)))
    return resume_commit(options, *commit, world);
  edit::ResumeOutcome outcome;
  io::FileIdentity image;
  std::string operand;
  const auto resume = [&](ChangeTarget& target) -> Result<ExitStatus> {
    operand = target.side_files.operand();
    outcome = TRY(edit::resume(*target.image, target.side_files, options.abandon, examine));
    image = target.image->status().identity;
    return success;
  };
  const ExitStatus status = TRY(with_target(options.target, world, resume));
  if (status != success)
    return status;
  // An allocation ends with storage, which no side file knows of.
  if (outcome.resumed == edit::Resumed::finished && outcome.operation == edit::Operation::allocate)
    return run_pull(request_for(options, outcome, image), world);
  // The run that plans again opens and locks the image itself.
  if (outcome.resumed == edit::Resumed::needs_plan) {
    const bool lacks_base =
        outcome.operation == edit::Operation::rebase && outcome.argument != 0 && !options.base;
    if (lacks_base)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is pending, and coldchain must compare its data again: give "
                              "the same -b and -F to 'coldchain resume{} {}'",
                              outcome.verb, options.abandon ? " --abandon" : "", operand));
    const PullRequest request = request_for(options, outcome, image);
    if (!options.abandon)
      return run_pull(request, world);
    const Result<edit::Resumed> given_up = give_up_pull(request, world);
    if (!given_up && given_up.error().code == ErrorCode::locked) {
      world.complain(given_up.error());
      return in_use;
    }
    outcome.resumed = TRY(given_up);
  }
  TRY(world.out(words_for(outcome, to_terminal(options.target.image), operand)));
  return success;
}

Result<ExitStatus> run_verb(const ResumeOptions& wanted, World& world) {
  ResumeOptions options = wanted;
  TRY(parse_rate(options.copy.rate));
  note_confines(options.target.folders, options.target.policy);
  options.target.policy.moved_backing = options.moved_base;
  Result<ExitStatus> status = resume_image(options, world);
  const bool may_be_moved =
      !status && status.error().code == ErrorCode::not_found && options.moved_base.empty() &&
      TRY(world.files(options.target.policy))->open_operand(options.target.image).has_value();
  if (may_be_moved)
    return fail(
        status.error().code,
        fmt::format("{}; if a backing file was moved, 'coldchain resume --base PATH {}' reads "
                    "it at its new path",
                    status.error().message, to_shell_word(options.target.image)));
  return status;
}

}  // namespace

void register_resume(CommandLine app, World& world, int& status) {
  add_verb<ResumeOptions>(app, "resume", "Continue an interrupted change, or roll it back", world,
                          status, options, run_verb);
}

}  // namespace coldchain::cli
