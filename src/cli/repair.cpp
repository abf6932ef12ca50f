// SPDX-License-Identifier: MIT
// repair: what check finds, mended; the same as check -r. The plan is made on an overlay, checked
// there, written through edit::commit, which keeps what an undo needs.
#include "repair.hpp"

#include "chain_change.hpp"
#include "change.hpp"
#include "consent.hpp"
#include "host_path.hpp"
#include "option_values.hpp"
#include "progress.hpp"
#include "verb.hpp"

#include <sstream>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/ops/repair.hpp>
#include <coldchain/report/repair_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct RepairVerbOptions {
  CommonOptions common;
  RepairRequest request;
};

void options(CommandLine app, RepairVerbOptions& repair) {
  add_common_options(app, repair.common);
  repair.request.tier = "all";
  add_repair_options(app, repair.request);
  app.add_flag("-q", repair.request.quiet, "Print no summary");
  app.add_flag("--list", repair.request.list, "List every remaining finding, one per line");
  add_progress_option(app, repair.request.shows_progress);
  app.add_option("IMAGE", repair.request.image, "Path or block device").required().type_name("");
  app.footer("Example: coldchain repair --dry-run disk.qcow2");
}

void plan_options(CommandLine app, RepairVerbOptions& repair) {
  options(app, repair);
  repair.request.dry_run = true;
  app.footer("Example: coldchain plan repair disk.qcow2");
}

Result<ExitStatus> run_verb(const RepairVerbOptions& repair, World& world) {
  return run_repair(repair.common, repair.request, world);
}

Result<ops::TableLink> parse_link(const std::string& word) {
  ops::TableLink link;
  char equals = 0;
  std::istringstream in(word);
  in.unsetf(std::ios::basefield);  // 0x… is hexadecimal
  if (!(in >> link.table.value >> equals >> link.l1_index) || equals != '=' ||
      in.peek() != std::istringstream::traits_type::eof())
    return fail(ErrorCode::invalid_argument,
                fmt::format("--link '{}': expected TABLE=INDEX, as 0x50000=3", to_terminal(word)));
  return link;
}

Result<ops::RepairOptions> parse(const RepairRequest& request, unsigned workers) {
  if (request.tier != "leaks" && request.tier != "all")
    return fail(ErrorCode::invalid_argument,
                fmt::format("Unknown option value for -r (expecting 'leaks' or 'all'): {}",
                            to_terminal(request.tier)));
  if (request.rebuild_mapping && request.tier != "all")
    return fail(ErrorCode::invalid_argument, "--rebuild-mapping needs -r all");
  if (!request.links.empty() && !request.rebuild_mapping)
    return fail(ErrorCode::invalid_argument, "--link needs --rebuild-mapping");
  if (request.no_undo && !request.folders.undo.empty())
    return fail(ErrorCode::invalid_argument, "--undo and --no-undo exclude each other");
  ops::RepairOptions options{
      .tier = request.tier == "all" ? ops::RepairTier::all : ops::RepairTier::leaks,
      .free_orphans = request.free_orphans,
      .rebuild_mapping = request.rebuild_mapping,
      .workers = workers};
  for (const std::string& word : request.links)
    options.links.push_back(TRY(parse_link(word)));
  return options;
}

// One repair, from the plan to the report.
class RepairRun {
 public:
  RepairRun(const CommonOptions& common, const RepairRequest& request, ops::RepairOptions options,
            World& world)
      : common_(common),
        request_(request),
        options_(std::move(options)),
        world_(world),
        meter_(world, request.shows_progress) {
    options_.progress = meter_.progress();
  }

  Result<ExitStatus> run() {
    const OpenedTree tree =
        TRY(open_tree(common_, request_.image, true, world_, graph::OpenFor::checking));
    if (tree.top->qcow2_image() == nullptr) {
      world_.complain({ErrorCode::unsupported, "This image format does not support checks", 0});
      return no_checks;
    }
    const ExitStatus status = TRY(request_.dry_run ? plan(tree) : repair(tree));
    return tell_broken_link(*tree.top) ? failure : status;
  }

 private:
  // As qemu-img, which opens no image whose backing file is missing.
  bool tell_broken_link(const graph::Node& top) {
    for (const graph::Node* node : graph::chain_of(top)) {
      if (!node->gap || common_.no_follow)
        continue;
      world_.complain(*node->gap);
      return true;
    }
    return false;
  }

  // The same command again goes on where the last one was stopped.
  Result<void> finish_pending(ChangeTarget& target) {
    const edit::ResumeOutcome outcome =
        TRY(edit::resume(*target.image, target.side_files, false, examine));
    if (outcome.resumed == edit::Resumed::needs_plan)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is pending: 'coldchain resume {}' continues it or, with "
                              "--abandon, rolls it back",
                              to_terminal(outcome.verb), target.side_files.operand()));
    if (outcome.resumed == edit::Resumed::finished)
      world_.complain(
          {ErrorCode::refused,
           fmt::format("'{}' was interrupted, and is finished now{}", to_terminal(outcome.verb),
                       outcome.undo_file
                           ? "; the former bytes are in " + to_terminal(*outcome.undo_file)
                           : ""),
           0});
    return {};
  }

  Result<ops::Repair> make_plan(edit::Transaction& transaction, const OpenedTree& tree,
                                const edit::SideFiles& side_files, const io::File& image) {
    options_.keep_unreferenced = TRY(edit::has_kept_clusters(image, side_files));
    Result<ops::Repair> repair = ops::plan_repair(transaction, tree.top->data_file.get(), options_);
    if (!repair)
      return fail(with_context(repair.error(), to_terminal(request_.image)));
    meter_.finish();
    return repair;
  }

  [[nodiscard]] report::RepairFacts facts_of(const ops::Repair& repair,
                                             const edit::Transaction& transaction) const {
    return {.repair = &repair,
            .tier = options_.tier,
            .is_dry_run = request_.dry_run,
            .changed_bytes = transaction.changed_bytes(),
            .size_before = transaction.size_before(),
            .size_after = transaction.size_after()};
  }

  Result<ExitStatus> plan(const OpenedTree& tree) {
    const io::File& image = *tree.top->file;
    const edit::SideFiles side_files = TRY(edit::SideFiles::of(image, request_.folders));
    TRY(edit::check_nothing_pending(image, side_files));
    edit::Transaction transaction(image);
    ops::Repair repair = TRY(make_plan(transaction, tree, side_files, image));
    // The plan shows what is left. There may be very many findings.
    (void)std::move(repair.before.findings).take_runs();
    report::RepairFacts facts = facts_of(repair, transaction);
    facts.planned = planned(world_, {tree.top.get()});
    if (!common_.json())
      TRY(report::write_repair_plan(facts, world_.sink()));
    return tell_result(report::repaired_image(request_.image, repair), facts);
  }

  // What `plan` would print of it.
  Result<std::string> planned_json(const ops::Repair& repair, report::RepairFacts facts,
                                   const OpenedTree& tree) const {
    facts.is_dry_run = true;
    facts.planned = planned(world_, {tree.top.get()});
    std::string text;
    const report::Sink append = [&](std::string_view some) -> Result<void> {
      text += some;
      return {};
    };
    TRY(write_json(report::repaired_image(request_.image, repair), facts, append));
    return text;
  }

  static Result<void> write_json(const report::CheckedImage& after,
                                 const report::RepairFacts& facts, const report::Sink& sink) {
    return report::write_check_json(after, false, sink, [&](report::JsonWriter& json) {
      report::write_repair_member(json, facts);
    });
  }

  Result<ExitStatus> repair(const OpenedTree& tree) {
    ChangeTarget target =
        TRY(open_for_change(*tree.top->file, tree.top->filename, request_.folders));
    const io::File& image = *target.image;
    TRY(check_unchanged(*tree.files, {tree.top.get()}));
    TRY(check_may_write(world_, {tree.top.get()}));
    TRY(check_nothing_else_pending(world_.agreement, target, request_.image,
                                   edit::Operation::none));
    TRY(finish_pending(target));
    edit::Transaction transaction(image);
    const ops::Repair repair = TRY(make_plan(transaction, tree, target.side_files, image));
    report::RepairFacts facts = facts_of(repair, transaction);
    const report::Sink to_err = [&](std::string_view text) -> Result<void> {
      world_.err(text);
      return {};
    };
    TRY(report::write_repair_messages(request_.image, facts, world_.out_is_terminal(),
                                      style_for(world_, common_.color), to_err));
    TRY(check_agreed(world_.agreement, [&] { return planned_json(repair, facts, tree); }));
    // From here, a signal does not stop the repair halfway: little is left to be written.
    world_.catch_interrupts();
    if (!transaction.is_empty()) {
      Result<std::optional<std::string>> undo_file =
          edit::commit(transaction, *target.image, target.side_files,
                       {.verb = "repair -r " + request_.tier,
                        .kept_clusters = repair.kept_clusters,
                        .corruptions_before = ops::corruption_count(repair.before),
                        .corruptions_after = ops::corruption_count(repair.after),
                        .keeps_undo = !request_.no_undo});
      if (!undo_file)
        return fail(with_context(undo_file.error(), to_terminal(request_.image)));
      facts.undo_file = undo_file->value_or("");
    }
    const report::CheckedImage after = report::repaired_image(request_.image, repair);
    if (!request_.quiet && !common_.json())
      TRY(world_.out(report::repair_text(after)));
    world_.err(report::repair_warnings(repair));
    Result<ExitStatus> status = tell_result(after, facts);
    if (!facts.undo_file.empty() && !request_.quiet)
      world_.err(
          fmt::format("coldchain: the former bytes are kept; to put them back: coldchain "
                      "undo {} {}\n",
                      to_shell_word(facts.undo_file), target.side_files.operand()));
    return status;
  }

  Result<ExitStatus> tell_result(const report::CheckedImage& after,
                                 const report::RepairFacts& facts) {
    if (common_.json()) {
      if (!request_.quiet)
        TRY(write_json(after, facts, world_.sink()));
    } else {
      if (!request_.quiet)
        TRY(report::write_check_text(after, world_.sink()));
      if (request_.list)
        TRY(report::write_check_list(after, style_for(world_, common_.color), world_.sink()));
      else if (!request_.quiet)
        world_.err(report::check_hints(after));
    }
    for (const std::string& failure : after.failures)
      world_.complain({ErrorCode::corrupt, failure, 0});
    return exit_status(after.verdict);
  }

  const CommonOptions& common_;
  const RepairRequest& request_;
  ops::RepairOptions options_;
  World& world_;
  ProgressMeter meter_;
};

}  // namespace

void add_repair_options(CommandLine app, RepairRequest& request) {
  app.add_option("-r", request.tier, "Repair what is found: leaks, or all")
      .check(not_empty())
      .type_name("TIER");
  app.add_flag("--dry-run", request.dry_run, "Show what a repair would change; write nothing");
  app.add_flag("--free-orphans", request.free_orphans,
               "Also free clusters that may hold lost data");
  app.add_flag("--rebuild-mapping", request.rebuild_mapping,
               "Look for lost L2 tables, and link those whose place is certain");
  app.add_option("--link", request.links,
                 "With --rebuild-mapping: the lost L2 table at host offset TABLE belongs to the L1 "
                 "entry INDEX")
      .type_name("TABLE=INDEX")
      .takes_all();
  add_undo_option(app, request.folders);
  app.add_flag("--no-undo", request.no_undo, "Keep no undo file");
  add_state_option(app, request.folders);
}

Result<ExitStatus> run_repair(const CommonOptions& wanted, const RepairRequest& wanted_repair,
                              World& world) {
  CommonOptions common = wanted;
  RepairRequest request = wanted_repair;
  take_consent(world, common, request.folders, nullptr);
  CopyOptions copy{.shows_progress = request.shows_progress};
  take_copy_options(world, copy);
  request.shows_progress = copy.shows_progress;
  note_confines(request.folders, common.policy);
  TRY(check_no_secrets(common));
  ops::RepairOptions options = TRY(parse(request, world.workers()));
  if (common.output != "human" && common.output != "json")
    return fail(ErrorCode::invalid_argument, "the output of a repair is human or json");
  return RepairRun(common, request, std::move(options), world).run();
}

ExitStatus exit_status(report::Verdict verdict) {
  switch (verdict) {
    case report::Verdict::clean:
      return success;
    case report::Verdict::no_checks:
      return no_checks;
    case report::Verdict::leaks:
      return leaks;
    case report::Verdict::corrupt:
      return corrupt;
    case report::Verdict::failed:
      return failure;
  }
  return failure;
}

void add_repair_plan(CommandLine plan, World& world, int& status) {
  add_looking_verb<RepairVerbOptions>(plan, "repair", "Show what a repair would do", world, status,
                                      plan_options, run_verb);
}

void register_repair(CommandLine app, World& world, int& status) {
  add_verb<RepairVerbOptions>(app, "repair", "Repair what check finds, as check -r", world, status,
                              options, run_verb);
}

}  // namespace coldchain::cli
