// SPDX-License-Identifier: MIT
// apply: carries out what was planned, as long as it comes to the same. The file says what to do,
// and allows nothing: the verb plans again, with the locks held, and compares.
#include "change.hpp"
#include "common_options.hpp"
#include "progress.hpp"
#include "verb.hpp"
#include "world.hpp"

#include <span>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/trust.hpp>
#include <coldchain/io/file.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

constexpr std::uint64_t most_bytes = 64ULL << 20;

struct ApplyOptions {
  std::string plan;
  std::vector<std::string> images;
  Consent consent;
};

void options(CommandLine app, ApplyOptions& apply) {
  app.add_option("PLAN", apply.plan, "A plan that 'plan VERB --output=json' wrote")
      .required()
      .type_name("");
  app.add_option("IMAGE", apply.images,
                 "All images that may be written to; without them, those that the plan names")
      .type_name("");
  app.add_flag("--force", apply.consent.force,
               "Apply even if another image or an internal snapshot depends on what changes");
  app.add_option("-f,--format", apply.consent.format,
                 "Format of the image that is changed; probed if not given")
      .type_name("FMT");
  app.add_flag("--allow-probe", apply.consent.allow_probe,
               "Follow the links of an image whose format its overlay does not record");
  add_unreadable_option(app, apply.consent.unreadable_are_zeros);
  add_state_option(app, apply.consent.folders);
  add_undo_option(app, apply.consent.folders);
  app.add_option("-r", apply.consent.rate, "Copy at most RATE bytes per second").type_name("RATE");
  add_progress_option(app, apply.consent.shows_progress);
  app.footer(
      "Example: coldchain plan commit --output=json top.qcow2 > plan.json\n"
      "         coldchain apply plan.json");
}

// Another user's plan may name any image: which ones are meant, the caller says.
Result<void> check_author(const ApplyOptions& apply, const io::FileStatus& plan) {
  edit::Authorship authorship = edit::authorship_of(plan, plan.owner);
  authorship.links = 1;  // its names do not matter
  const edit::Belief belief = edit::belief_in(authorship, true);
  if (belief == edit::Belief::believed || !apply.images.empty())
    return {};
  return fail(ErrorCode::permission_denied,
              fmt::format("another user may have written this plan (owner {}, mode {:04o}); name "
                          "all images that it may write to: 'coldchain apply {} IMAGE...'",
                          edit::name_of_user(plan.owner), plan.mode, to_shell_word(apply.plan)));
}

Result<Agreement> read_plan(const ApplyOptions& apply, const World& world) {
  const auto files = TRY(world.files({}));
  const std::unique_ptr<io::File> file = TRY(files->open(apply.plan));
  TRY(check_author(apply, file->status()));
  if (file->size() > most_bytes)
    return fail(ErrorCode::corrupt, fmt::format("is not a plan: it has {} bytes", file->size()));
  // What lies in a hole is no text, and takes memory.
  if (const HostOffset hole = TRY(file->next_hole({0})); hole.value < file->size())
    return fail(ErrorCode::corrupt, fmt::format("is not a plan: it has a hole at {}", hole.value));
  std::string text(file->size(), '\0');
  TRY(io::read_exactly(*file, {0}, std::as_writable_bytes(std::span(text)), "plan"));
  Agreement agreement = TRY(read_agreement(std::move(text)));
  agreement.consent = apply.consent;
  agreement.images = apply.images;
  return agreement;
}

Result<ExitStatus> run_verb(const ApplyOptions& apply, World& world) {
  Result<Agreement> agreement = read_plan(apply, world);
  if (!agreement)
    return fail(with_context(agreement.error(), to_terminal(apply.plan)));
  world.agreement = std::move(*agreement);
  return ExitStatus(run(world.agreement->command, world));
}

}  // namespace

void register_apply(CommandLine app, World& world, int& status) {
  add_verb<ApplyOptions>(app, "apply", "Carry out a plan, if it is still valid", world, status,
                         options, run_verb);
}

}  // namespace coldchain::cli
