// SPDX-License-Identifier: MIT
// rebase: qemu-img's. Safe, what the former chain provides and the new one does not moves into the
// image, which is a pull onto another base; unsafe, the link alone changes.
#include "cache_option.hpp"
#include "change.hpp"
#include "host_path.hpp"
#include "pull.hpp"
#include "verb.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/ops/backing_link.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct RebaseOptions {
  PullRequest pull;
  std::optional<std::string> base_format;
  std::string cache = "writeback";
  std::string source_cache = "writeback";
  bool is_unsafe = false;
};

void options(CommandLine app, RebaseOptions& rebase) {
  rebase.pull.is_rebase = true;
  add_pull_options(app, rebase.pull);
  app.add_option("-b", rebase.pull.base, "The new backing file, as it is recorded; '' for none")
      .type_name("BASE");
  app.add_option("-F", rebase.base_format, "Its format").type_name("FMT");
  app.add_flag("-u", rebase.is_unsafe,
               "Change only the link; the guest may read different data afterwards");
  app.add_option("-t", rebase.cache, "Accepted and ignored").type_name("CACHE");
  app.add_option("-T", rebase.source_cache, "Accepted and ignored").type_name("CACHE");
  app.footer("Example: coldchain rebase -b base.qcow2 -F qcow2 top.qcow2");
}

void plan_options(CommandLine app, RebaseOptions& rebase) {
  options(app, rebase);
  rebase.pull.is_plan = true;
  app.footer("Example: coldchain plan rebase -b base.qcow2 -F qcow2 top.qcow2");
}

// QEMU opens no image whose header records a longer name, and cuts the one that it records.
constexpr std::size_t most_format_bytes = 15;

Result<void> check_usage(const RebaseOptions& rebase, bool is_planned) {
  TRY(check_cache(rebase.cache));
  TRY(check_cache(rebase.source_cache));
  if (!rebase.pull.base && !rebase.is_unsafe)
    return fail(ErrorCode::invalid_argument,
                "Must specify backing file (-b) or use unsafe mode (-u)");
  if (rebase.base_format && !graph::is_known_format(*rebase.base_format))
    return fail(ErrorCode::invalid_argument,
                fmt::format("Invalid format name: '{}'", to_terminal(*rebase.base_format)));
  if (rebase.base_format && !rebase.is_unsafe && *rebase.base_format != "qcow2" &&
      *rebase.base_format != "raw")
    return fail(ErrorCode::unsupported,
                fmt::format("a backing file of format {} is not read, and a safe rebase compares "
                            "what it holds: with -u, only its name and format are recorded",
                            *rebase.base_format));
  const bool has_base = rebase.pull.base && !rebase.pull.base->empty();
  if (has_base && !rebase.base_format)
    return fail(ErrorCode::invalid_argument,
                fmt::format("Could not change the backing file to '{}': backing format must be "
                            "specified",
                            to_terminal(*rebase.pull.base)));
  if (rebase.is_unsafe && is_planned)
    return fail(ErrorCode::invalid_argument,
                "a rebase with -u cannot be planned: it only changes one sector of the header");
  return {};
}

Result<ExitStatus> rebase_unsafely(const RebaseOptions& rebase, ChangeTarget& target) {
  const edit::ResumeOutcome pending =
      TRY(edit::resume(*target.image, target.side_files, false, examine));
  if (pending.resumed == edit::Resumed::needs_plan)
    return fail(
        ErrorCode::refused,
        fmt::format(
            "'{}' is pending: 'coldchain resume {}' continues it or, with --abandon, rolls it back",
            pending.verb, target.side_files.operand()));
  edit::Transaction transaction(*target.image);
  std::optional<ops::BackingLink> link;
  if (rebase.pull.base && !rebase.pull.base->empty())
    link = {*rebase.pull.base, rebase.base_format->substr(0, most_format_bytes)};
  TRY(ops::plan_relink(transaction, link));
  const std::uint64_t corruptions = TRY(examine(*target.image)).corruptions;
  TRY(edit::commit(transaction, *target.image, target.side_files,
                   {.verb = "rebase -u",
                    .corruptions_before = corruptions,
                    .corruptions_after = corruptions,
                    .keeps_undo = false}));
  return success;
}

Result<ExitStatus> run_verb(const RebaseOptions& rebase, World& world) {
  TRY(check_usage(rebase, world.agreement.has_value()));
  TRY(check_no_secrets(rebase.pull.common));
  PullRequest request = rebase.pull;
  request.base_format = rebase.base_format.value_or("");
  note_confines(request.folders, request.common.policy);
  if (!rebase.is_unsafe)
    return run_pull(request, world);
  const Result<OpenedTree> tree = open_tree(request.common, request.image, false, world);
  if (!tree)
    return fail(tree.error());
  if (tree->top->qcow2_image() == nullptr)
    return fail(ErrorCode::refused,
                fmt::format("Could not change the backing file of '{}': only a qcow2 image has one",
                            to_terminal(request.image)));
  Result<ChangeTarget> target =
      open_for_change(*tree->top->file, tree->top->filename, request.folders);
  if (!target)
    return fail(target.error());
  const Result<ExitStatus> done = rebase_unsafely(rebase, *target);
  return done ? done : fail(with_context(done.error(), to_terminal(request.image)));
}

}  // namespace

void add_rebase_plan(CommandLine plan, World& world, int& status) {
  add_looking_verb<RebaseOptions>(plan, "rebase", "Show what a safe rebase would do", world, status,
                                  plan_options, run_verb);
}

void register_rebase(CommandLine app, World& world, int& status) {
  add_verb<RebaseOptions>(app, "rebase", "Change the backing file, as qemu-img rebase", world,
                          status, options, run_verb);
}

}  // namespace coldchain::cli
