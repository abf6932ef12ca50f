// SPDX-License-Identifier: MIT
// resume: finishes a change that was interrupted, or gives it up.
#include "change.hpp"
#include "verb.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct ResumeOptions {
  TargetOptions target;
  bool abandon = false;
};

void options(CLI::App& app, ResumeOptions& resume) {
  app.add_flag("--abandon", resume.abandon, "Go back instead of forward");
  add_undo_option(app, resume.target.folders);
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
    case edit::Resumed::abandoned:
      return fmt::format("'{}' is given up; {} is as it was before.\n", to_terminal(outcome.verb),
                         image);
  }
  return "";
}

Result<ExitStatus> resume(const ResumeOptions& options, ChangeTarget& target, World& world) {
  const edit::ResumeOutcome outcome =
      TRY(edit::resume(target.image, target.side_files, options.abandon, count_corruptions));
  TRY(world.out(words_for(outcome, to_terminal(options.target.image))));
  return success;
}

Result<ExitStatus> run_verb(const ResumeOptions& options, World& world) {
  return with_target(options.target, world,
                     [&](ChangeTarget& target) { return resume(options, target, world); });
}

}  // namespace

void register_resume(CLI::App& app, World& world, int& status) {
  add_verb<ResumeOptions>(app, "resume", "Finish a change that was interrupted", world, status,
                          options, run_verb);
}

}  // namespace coldchain::cli
