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
  bool abandon = false;
  std::string root;
  std::string state_folder = "/var/lib/coldchain";
  std::string image;
};

void options(CLI::App& app, ResumeOptions& resume) {
  app.add_flag("--abandon", resume.abandon, "Go back instead of forward");
  app.add_option("--root", resume.root, "Open no image outside DIR")->type_name("DIR");
  add_state_option(app, resume.state_folder);
  app.add_option("IMAGE", resume.image, "Path or block device")->required()->type_name("");
  app.footer("Example: coldchain resume disk.qcow2");
}

std::string words_for(const edit::ResumeOutcome& outcome, const std::string& image) {
  switch (outcome.resumed) {
    case edit::Resumed::nothing_pending:
      return fmt::format("Nothing is pending for {}.\n", image);
    case edit::Resumed::nothing_changed:
      return fmt::format("A change of {} had not begun; what was left of it is removed.\n", image);
    case edit::Resumed::finished:
      return fmt::format("'{}' is finished; the former bytes are in {}.\n",
                         to_terminal(outcome.verb), to_terminal(outcome.undo_file));
    case edit::Resumed::abandoned:
      return fmt::format("'{}' is given up; {} is as it was before.\n", to_terminal(outcome.verb),
                         image);
  }
  return "";
}

Result<ExitStatus> run_verb(const ResumeOptions& options, World& world) {
  io::OpenPolicy policy;
  policy.root = options.root;
  const auto files = TRY(world.files(policy));
  Result<ChangeTarget> target = open_for_change(*files, options.image, options.state_folder);
  if (!target) {
    world.complain(target.error());
    return target.error().code == ErrorCode::locked ? in_use : failure;
  }
  const edit::ResumeOutcome outcome =
      TRY(edit::resume(target->image, target->side_files, options.abandon, count_corruptions));
  TRY(world.out(words_for(outcome, to_terminal(options.image))));
  return success;
}

}  // namespace

void register_resume(CLI::App& app, World& world, int& status) {
  add_verb<ResumeOptions>(app, "resume", "Finish a change that was interrupted", world, status,
                          options, run_verb);
}

}  // namespace coldchain::cli
