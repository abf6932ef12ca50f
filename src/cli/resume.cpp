// SPDX-License-Identifier: MIT
// resume: finishes a change that was interrupted, or gives it up.
#include "chain_change.hpp"
#include "change.hpp"
#include "commit.hpp"
#include "pull.hpp"
#include "readers.hpp"
#include "verb.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/plan.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct ResumeOptions {
  TargetOptions target;
  std::optional<std::string> base;
  std::string base_format;
  bool abandon = false;
};

void options(CLI::App& app, ResumeOptions& resume) {
  app.add_flag("--abandon", resume.abandon, "Go back instead of forward");
  app.add_option("-b", resume.base, "Of a rebase: the new backing file, as it was given")
      ->type_name("BASE");
  app.add_option("-F", resume.base_format, "Its format, as it was given")->type_name("FMT");
  add_undo_option(app, resume.target.folders);
  app.add_option("--sysroot", resume.target.policy.sysroot, "Read absolute names inside DIR")
      ->type_name("DIR");
  add_target_options(app, resume.target);
  app.footer("Example: coldchain resume disk.qcow2");
}

std::string words_for(const edit::ResumeOutcome& outcome, const std::string& image) {
  switch (outcome.resumed) {
    case edit::Resumed::nothing_pending:
      return fmt::format("Nothing is pending for {}.\n", image);
    case edit::Resumed::nothing_changed:
      return fmt::format("A change of {} had not begun; what was left of it is removed.\n", image);
    case edit::Resumed::finished:
      return fmt::format(
          "'{}' is finished{}.\n", to_terminal(outcome.verb),
          outcome.undo_file ? "; the former bytes are in " + to_terminal(*outcome.undo_file) : "");
    case edit::Resumed::needs_plan:
      return "";  // goes on
    case edit::Resumed::left:
      return fmt::format(
          "'{0}' is given up. {1}, or an image below it, is not what it was then, so nothing was "
          "put back; what had been taken for the copy may leak: 'coldchain check {1}' tells.\n",
          outcome.verb, image);
    case edit::Resumed::abandoned:
      return fmt::format("'{}' is given up; {} is as it was before.\n", to_terminal(outcome.verb),
                         image);
  }
  return "";
}

PullRequest request_for(const ResumeOptions& options, const edit::ResumeOutcome& outcome) {
  PullRequest request;
  request.image = options.target.image;
  request.common.policy.root = options.target.policy.root;
  request.common.policy.sysroot = options.target.policy.sysroot;
  request.common.format = "qcow2";
  request.common.policy.allow_probe = true;  // so was this
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
  request.force = true;  // was decided when it began
  return request;
}

// What is pending for an image, without its locks. That it cannot be opened, those tell who change
// it.
Result<std::optional<edit::JournalHead>> pending_of(const std::string& image,
                                                    const ResumeOptions& options, World& world) {
  const auto files = TRY(world.files(options.target.policy));
  const Result<std::unique_ptr<io::File>> opened = files->open(image);
  if (!opened)
    return std::nullopt;
  const std::unique_ptr<io::File>& file = *opened;
  const io::Location location = TRY(files->locate(image));
  const auto side_files =
      TRY(edit::SideFiles::of(file->status(), location, options.target.folders));
  return edit::read_pending(*file, side_files);
}

Result<std::uint64_t> argument_of(const std::string& image, const ResumeOptions& options,
                                  World& world) {
  const auto files = TRY(world.files(options.target.policy));
  return TRY(files->open(image))->status().lasting_identity.inode;
}

// Images in the folder of the one that is named that read through it.
Result<std::vector<std::string>> readers_of_image(const ResumeOptions& options,
                                                  const World& world) {
  io::OpenPolicy policy = options.target.policy;
  policy.allow_probe = true;  // so was this
  const auto files = TRY(world.files(policy));
  const io::FileIdentity image = TRY(files->open(options.target.image))->status().identity;
  return find_readers(*files, policy, {TRY(files->locate(options.target.image)).folder}, image,
                      world);
}

// A commit changes two images; the one at the top leads.
struct PendingCommit {
  std::string top;
  std::uint64_t base = 0;      // as side files know it
  edit::ChangeFacts change{};  // of the top, or of the base where that alone has a side file
};

std::optional<PendingCommit> commit_above(const std::string& top, std::uint64_t base,
                                          const ResumeOptions& options, World& world) {
  const auto pending = pending_of(top, options, world);
  if (!pending || !*pending || !edit::is_commit_top((*pending)->facts.change.operation) ||
      (*pending)->facts.change.argument != base)
    return std::nullopt;
  return PendingCommit{top, base, (*pending)->facts.change};
}

// Into the base that was named. Where that has no side file, nothing has begun there yet, or all
// has ended; else its side file knows the top.
Result<std::optional<PendingCommit>> commit_into(const ResumeOptions& options,
                                                 const std::optional<edit::JournalHead>& of_base,
                                                 World& world) {
  const std::uint64_t base = TRY(argument_of(options.target.image, options, world));
  for (const std::string& path : TRY(readers_of_image(options, world))) {
    if (of_base && argument_of(path, options, world).value_or(0) != of_base->facts.change.argument)
      continue;
    if (auto commit = commit_above(path, base, options, world))
      return commit;
    if (of_base)
      return PendingCommit{path, base, of_base->facts.change};
  }
  if (!of_base)
    return std::nullopt;
  return fail(
      ErrorCode::refused,
      fmt::format("the commit of an image into {0} is pending, which is not in its folder: "
                  "'coldchain resume' of that image goes on or, with --abandon, gives it up; if "
                  "that is gone for good, rename {0}.coldchain-pending to "
                  "{0}.coldchain-given-up: the base is sound, and has a part of what was committed",
                  to_terminal(options.target.image)));
}

// Of the image that was named into one below it, which alone has a side file: giving it up was
// stopped.
Result<std::optional<PendingCommit>> commit_known_below(const ResumeOptions& options,
                                                        World& world) {
  io::OpenPolicy policy = options.target.policy;
  policy.allow_probe = true;  // so was this
  const auto files = TRY(world.files(policy));
  const auto top = graph::open(*files, policy, {.name = options.target.image, .format = "qcow2"});
  if (!top)
    return std::nullopt;
  for (const graph::Node* node : graph::chain_of(**top)) {
    if (!node->file)
      continue;
    const auto location = locate(*files, *node);
    const auto side_files = location ? edit::SideFiles::of(node->file->status(), *location,
                                                           {.state = options.target.folders.state})
                                     : fail(location.error());
    if (!side_files)
      continue;  // nobody could go on with one there
    const auto pending = edit::read_pending(*node->file, *side_files);
    if (!pending)
      world.complain(pending.error());
    if (!pending || !*pending)
      continue;
    const edit::ChangeFacts& change = (*pending)->facts.change;
    if (change.operation == edit::Operation::commit_base &&
        change.argument == ops::commit_argument(**top))
      return PendingCommit{options.target.image, ops::commit_argument(*node), change};
  }
  return std::nullopt;
}

Result<std::optional<PendingCommit>> find_commit(const ResumeOptions& options, World& world) {
  const auto pending = TRY(pending_of(options.target.image, options, world));
  if (pending && edit::is_commit_top(pending->facts.change.operation))
    return PendingCommit{options.target.image, pending->facts.change.argument,
                         pending->facts.change};
  if (pending && pending->facts.change.operation != edit::Operation::commit_base)
    return std::nullopt;
  if (pending)
    return commit_into(options, pending, world);
  if (auto below = TRY(commit_known_below(options, world)))
    return below;
  // What else lies in the folder need not be of this image.
  return commit_into(options, std::nullopt, world).value_or(std::nullopt);
}

Result<ExitStatus> resume_commit(const ResumeOptions& options, const PendingCommit& commit,
                                 World& world) {
  const edit::ChangeFacts& change = commit.change;
  CommitRequest request;
  request.image = commit.top;
  request.common.policy.root = options.target.policy.root;
  request.common.policy.sysroot = options.target.policy.sysroot;
  request.common.policy.allow_probe = true;  // so was this
  request.common.format = "qcow2";
  request.folders = options.target.folders;
  request.force = ops::has_option(change.verb, ops::force_option);
  request.argument = commit.base;
  request.keeps = change.operation != edit::Operation::commit_top;
  request.detects_zeroes = ops::has_option(change.verb, ops::detect_zeroes_option);
  if (ops::has_option(change.verb, ops::merge_bitmaps_option))
    request.bitmaps = ops::BitmapRule::merge;
  if (options.abandon)
    return give_up_commit(request, world);
  const ExitStatus status = TRY(run_commit(request, world));
  // Whatever a scan would find now, nobody has agreed to.
  if (ops::has_option(change.verb, ops::reparent_option))
    world.err(
        fmt::format("overlays of '{0}' that still name it read the same as before: 'coldchain "
                    "commit --reparent' of it points them at the base\n",
                    to_terminal(request.image)));
  return status;
}

Result<ExitStatus> run_verb(const ResumeOptions& options, World& world) {
  if (const auto commit = TRY(find_commit(options, world)))
    return resume_commit(options, *commit, world);
  edit::ResumeOutcome outcome;
  const auto resume = [&](ChangeTarget& target) -> Result<ExitStatus> {
    outcome = TRY(edit::resume(target.image, target.side_files, options.abandon, examine));
    return success;
  };
  const ExitStatus status = TRY(with_target(options.target, world, resume));
  if (status != success)
    return status;
  // An allocation ends with storage, which no side file knows of.
  if (outcome.resumed == edit::Resumed::finished && outcome.operation == edit::Operation::allocate)
    return run_pull(request_for(options, outcome), world);
  // Who plans again opens and locks the image himself.
  if (outcome.resumed == edit::Resumed::needs_plan) {
    const bool lacks_base =
        outcome.operation == edit::Operation::rebase && outcome.argument != 0 && !options.base;
    if (lacks_base && !options.abandon)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is pending: the same command goes on, or 'coldchain resume' "
                              "with the same -b and -F",
                              outcome.verb));
    const PullRequest request = request_for(options, outcome);
    if (!options.abandon)
      return run_pull(request, world);
    const Result<edit::Resumed> given_up = give_up_pull(request, world);
    if (!given_up && given_up.error().code == ErrorCode::locked) {
      world.complain(given_up.error());
      return in_use;
    }
    outcome.resumed = TRY(given_up);
  }
  TRY(world.out(words_for(outcome, to_terminal(options.target.image))));
  return success;
}

}  // namespace

void register_resume(CLI::App& app, World& world, int& status) {
  add_verb<ResumeOptions>(app, "resume", "Finish a change that was interrupted", world, status,
                          options, run_verb);
}

}  // namespace coldchain::cli
