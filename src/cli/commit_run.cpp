// SPDX-License-Identifier: MIT
// commit: qemu-img's. What lies above a base moves into it. From the images to what is told.
#include "cache_option.hpp"
#include "chain_change.hpp"
#include "change.hpp"
#include "commit.hpp"
#include "commit_base.hpp"
#include "commit_dependents.hpp"
#include "commit_step.hpp"
#include "consent.hpp"
#include "former_files.hpp"
#include "host_path.hpp"
#include "link_warnings.hpp"
#include "pending_warning.hpp"
#include "reparent.hpp"

#include <algorithm>
#include <filesystem>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/storage.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/commit.hpp>
#include <coldchain/report/commit_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

class CommitRun {
 public:
  CommitRun(const CommitRequest& request, std::uint64_t rate, World& world)
      : request_(request), world_(world), meter_(world, request.copy.shows_progress, rate) {}

  Result<ExitStatus> run() {
    return started([this] { return request_.is_plan ? plan() : commit(); });
  }

  Result<ExitStatus> give_up() {
    return started([this]() -> Result<std::optional<ExitStatus>> {
      TRY(lock());
      const auto top = TRY(pending_in(*top_));
      const auto base_pending = TRY(pending_in(*base_target_));
      TRY(check_is_this(top, base_pending));
      TRY(end_overlays(top, base_pending));
      return std::optional(TRY(abandon(top, base_pending)));
    });
  }

 private:
  // What was pending before may have to be ended first: then the chain is another one.
  template <class Work>
  Result<ExitStatus> started(const Work& work) {
    for (;;) {
      const Result<void> opened = open();
      const Result<std::optional<ExitStatus>> done = opened ? work() : fail(opened.error());
      if (!done && done.error().code == ErrorCode::locked && request_.argument) {
        world_.complain(done.error());
        return in_use;
      }
      if (!done)
        return fail(done.error());
      if (*done)
        return **done;
    }
  }

  Result<void> open() {
    top_.reset();
    base_target_.reset();
    overlays_ = {};
    tree_ = {};  // with its locks
    tree_ = TRY(open_tree(request_.common, request_.image, true, world_));
    TRY(check_is_file(*tree_.top, request_.image_file));
    nodes_ = graph::chain_of(*tree_.top);
    if (nodes_.size() == 1 && !request_.base)
      return fail(ErrorCode::invalid_argument, "Image does not have a backing file");
    base_ = TRY(find_commit_base(*tree_.files, request_, nodes_));
    if (!base().is_open())
      return fail(*base().gap);
    if (request_.base_format && *request_.base_format != base().format)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is {} by what the image above it records, not {}",
                              to_terminal(base().filename), to_terminal(base().format),
                              to_terminal(*request_.base_format)));
    if (base().format_probed)
      return fail(ErrorCode::refused,
                  fmt::format("no image records the format of '{0}', and coldchain does not write "
                              "to an image whose format was only probed: record it with 'coldchain "
                              "rebase -u -b {1} -F FORMAT {2}'",
                              to_terminal(base().filename), to_shell_word(base().name),
                              operand_of(*nodes_[base_ - 1], request_.folders)));
    if (!request_.force && !request_.argument)
      TRY(check_is_raw(base(), *nodes_[base_ - 1], request_.folders));
    TRY(check_probed(*tree_.top, request_.common, request_.image));
    return check_recorded(tree_, request_.common, request_.image);
  }

  [[nodiscard]] const graph::Node& base() const { return *nodes_[base_]; }

  // The tree may be another one by now: with images as they were before what is pending.
  Result<void> make_plan() {
    TRY(make_chains());
    base_change_.emplace(*base().file);
    ops::CommitOptions options = commit_options();
    options.progress = meter_.progress();
    commit_ = TRY(ops::plan_commit(*base_change_, *chain_, *base_chain_, options));
    return plan_top();
  }

  Result<void> make_chains() {
    const bool are_zeros = request_.unreadable_are_zeros || rolls_back_;
    chain_ = TRY(
        graph::Chain::make(*nodes_.front(), {.written = base_, .unreadable_are_zeros = are_zeros}));
    base_chain_ =
        TRY(graph::Chain::make(base(), {.written = 0, .unreadable_are_zeros = are_zeros}));
    return {};
  }

  Result<void> plan_top() {
    top_change_.emplace(*nodes_.front()->file);
    Result<ops::Emptying> emptying =
        ops::plan_emptying(*top_change_, *chain_, empties(), commit_options());
    if (!emptying)
      return fail(with_context(emptying.error(), to_terminal(request_.image)));
    emptying_ = std::move(*emptying);
    return {};
  }

  [[nodiscard]] ops::CommitOptions commit_options() const {
    return {.base = base_,
            .force = request_.force || rolls_back_,
            .reparents = request_.reparents,
            .bitmaps = request_.bitmaps,
            .detects_zeroes = request_.detects_zeroes,
            .workers = world_.workers()};
  }

  [[nodiscard]] bool empties() const { return !request_.keeps && !request_.base && base_ == 1; }

  Result<void> look_for_dependents() {
    const std::vector<std::string> folders = TRY(directories());
    searched_.clear();
    std::error_code none;
    for (std::string folder : folders) {
      // As a person names it who stands here.
      const std::string shorter =
          std::filesystem::path(folder).lexically_proximate(std::filesystem::current_path(none));
      if (!shorter.starts_with(".."))
        folder = shorter;
      if (std::find(searched_.begin(), searched_.end(), folder) == searched_.end())
        searched_.push_back(folder);
    }
    // As others see the images now, not as they were before what is pending.
    const NodeChain nodes = graph::chain_of(*tree_.top);
    const PlannedCommit planned{nodes,   base_,    *chain_, *base_chain_, !base_change_->is_empty(),
                                commit_, empties()};
    dependents_ =
        TRY(find_commit_dependents(*tree_.files, request_.common, folders, planned, world_));
    return {};
  }

  // Where others may be.
  [[nodiscard]] Result<std::vector<std::string>> directories() const {
    std::vector<std::string> directories = request_.scan;
    directories.push_back(TRY(locate(*nodes_.front())).folder);
    directories.push_back(TRY(locate(base())).folder);
    return directories;
  }

  // To be pointed at the base when that has everything.
  Result<void> prepare_overlays() {
    TRY(look_for_overlays());
    TRY(overlays_.check_agreed(request_.agrees ||
                               (world_.agreement && !world_.agreement->plan.empty())));
    TRY(check_may_write(world_, overlays_.images()));
    return overlays_.lock(*tree_.files, request_.folders);
  }

  // They are planned on the images as they are, whatever is pending in the base.
  Result<void> look_for_overlays() {
    overlays_ = {};
    if (!request_.reparents)
      return {};
    const std::vector<std::string> folders = TRY(directories());
    return overlays_.find(*tree_.files, request_.common, folders, graph::chain_of(*tree_.top),
                          base_, world_);
  }

  [[nodiscard]] std::string dependents_text() const {
    return to_terminal(fmt::format("{}", fmt::join(dependents_, ", ")));
  }

  [[nodiscard]] Error refused_for_dependents() const {
    return {ErrorCode::refused,
            fmt::format("other images depend on what would change and would read different data: "
                        "{}; with --force the commit runs anyway",
                        dependents_text()),
            0};
  }

  [[nodiscard]] Error refused_for_new_dependents() const {
    return {ErrorCode::refused,
            fmt::format("since the commit was interrupted, other images depend on what changes and "
                        "would read different data: {}; 'coldchain resume --abandon {}' rolls it "
                        "back, and --force continues it anyway",
                        dependents_text(), top_->side_files.operand()),
            0};
  }

  Result<std::optional<ExitStatus>> plan() {
    TRY(warn_of_pending(request_.common, *tree_.top, world_, request_.folders));
    warn_of_links(nodes_, world_);
    TRY(check_may_change_all({nodes_.front(), &base()}));
    TRY(check_may_read(layers_read(), request_.common.force_share));
    TRY(make_plan());
    TRY(look_for_dependents());
    TRY(look_for_overlays());
    TRY(check_may_change_all(overlays_.images()));
    TRY(tell());
    if (dependents_.empty() || request_.force)
      return std::optional(success);
    return fail(refused_for_dependents());
  }

  [[nodiscard]] Result<void> check_may_change_all(const NodeChain& written) const {
    for (const graph::Node* image : written)
      TRY(check_may_change(*image, request_.common.force_share));
    return {};
  }

  [[nodiscard]] NodeChain layers_read() const {
    NodeChain layers = nodes_;
    std::erase_if(
        layers, [&](const graph::Node* node) { return node == nodes_.front() || node == &base(); });
    return layers;
  }

  Result<void> lock() {
    top_ = TRY(open_for_change(*tree_.top->file, tree_.top->filename, request_.folders));
    base_target_ = TRY(open_for_change(*base().file, base().filename, request_.folders));
    TRY(lock_for_reading(layers_read()));
    return check_unchanged(*tree_.files, nodes_);
  }

  // Nothing where all must be opened again.
  Result<std::optional<ExitStatus>> commit() {
    TRY(lock());
    TRY(check_may_write(world_, {nodes_.front(), &base()}));
    if (TRY(end_other_change(*top_, nodes_.front()->filename)) ||
        TRY(end_other_change(*base_target_, base().filename)))
      return std::nullopt;
    const std::optional<edit::JournalHead> top = TRY(pending_in(*top_));
    const std::optional<edit::JournalHead> base_pending = TRY(pending_in(*base_target_));
    TRY(check_is_this(top, base_pending));
    const CommitStep step = next_step(state_of(top), state_of(base_pending));
    if (step == CommitStep::go_back && world_.agreement)
      return fail(ErrorCode::refused,
                  fmt::format("nothing was changed: the rollback of a commit into {} was "
                              "interrupted; finish it with 'coldchain resume {}'",
                              to_terminal(base().filename), top_->side_files.operand()));
    if (base_pending)
      TRY(check_agreed_digest(world_.agreement, base_pending->facts.change.digest,
                              top_->side_files.operand()));
    TRY(end_overlays(top, base_pending));
    switch (step) {
      case CommitStep::go_back: {
        const ExitStatus status = TRY(abandon(top, base_pending));
        return request_.argument ? std::optional(status) : std::nullopt;
      }
      case CommitStep::put_away:
        TRY(prepare_overlays());
        TRY(overlays_.carry_out());
        return std::optional(TRY(end_done()));
      case CommitStep::empty_top:
        TRY(open_former(true));
        return std::optional(TRY(empty_top()));
      case CommitStep::go_on:
        TRY(open_former(false));
        return std::optional(TRY(go_on(state_of(base_pending) != edit::JournalState::done)));
      case CommitStep::begin:
        break;
    }
    if (request_.argument)
      return fail(ErrorCode::refused, "the change is no longer pending: another run has ended it");
    return std::optional(TRY(begin()));
  }

  // What was stopped between two overlays. The same command with --reparent may have gone on with a
  // commit that began without.
  Result<void> end_overlays(const std::optional<edit::JournalHead>& top,
                            const std::optional<edit::JournalHead>& base_pending) {
    bool may_be_left = request_.reparents || state_of(base_pending) == edit::JournalState::done;
    for (const auto* head : {&top, &base_pending})
      may_be_left = may_be_left ||
                    (*head && ops::has_option((*head)->facts.change.verb, ops::reparent_option));
    // Where `apply` was given the images, these overlays are not among them.
    if (!may_be_left || (world_.agreement && !world_.agreement->images.empty()))
      return {};
    const std::vector<std::string> folders = TRY(directories());
    return end_reparentings(*tree_.files, request_.common, folders, base(), request_.folders,
                            world_);
  }

  static std::optional<edit::JournalState> state_of(const std::optional<edit::JournalHead>& head) {
    return head ? std::optional(head->state) : std::nullopt;
  }

  static Result<std::optional<edit::JournalHead>> pending_in(const ChangeTarget& target) {
    return edit::read_pending(*target.image, target.side_files);
  }

  // Ends what is pending there of another verb. Says whether the image has changed by that.
  Result<bool> end_other_change(ChangeTarget& target, const std::string& name) {
    const std::optional<edit::JournalHead> head = TRY(pending_in(target));
    if (head && (head->facts.change.operation == edit::Operation::commit_base ||
                 edit::is_commit_top(head->facts.change.operation)))
      return false;
    TRY(check_nothing_else_pending(world_.agreement, target, name, edit::Operation::none));
    const Result<edit::ResumeOutcome> ended =
        edit::resume(*target.image, target.side_files, false, examine);
    if (!ended)
      return fail(with_context(ended.error(), to_terminal(name)));
    if (ended->resumed == edit::Resumed::needs_plan)
      return fail(
          ErrorCode::refused,
          fmt::format("'{}' is pending in {}: 'coldchain resume {}' continues it or, with "
                      "--abandon, rolls it back",
                      to_terminal(ended->verb), to_terminal(name), target.side_files.operand()));
    return ended->resumed != edit::Resumed::nothing_pending &&
           ended->resumed != edit::Resumed::nothing_changed;
  }

  [[nodiscard]] Result<void> check_is_this(const std::optional<edit::JournalHead>& top,
                                           const std::optional<edit::JournalHead>& base) const {
    const edit::Operation wanted =
        empties() ? edit::Operation::commit_top : edit::Operation::commit_top_kept;
    const auto is_one = [&](const edit::ChangeFacts& change, edit::Operation operation,
                            const graph::Node& other) {
      return change.operation == operation && change.argument == ops::commit_argument(other) &&
             ops::has_option(change.verb, ops::detect_zeroes_option) == request_.detects_zeroes &&
             ops::has_option(change.verb, ops::merge_bitmaps_option) ==
                 (request_.bitmaps == ops::BitmapRule::merge);
    };
    const bool is_top = !top || is_one(top->facts.change, wanted, this->base());
    const bool is_base =
        !base || is_one(base->facts.change, edit::Operation::commit_base, *nodes_.front());
    if (is_top && is_base)
      return {};
    const std::string& image = is_top ? this->base().filename : nodes_.front()->filename;
    const ChangeTarget& target = is_top ? *base_target_ : *top_;
    return fail(ErrorCode::refused,
                fmt::format("another commit is pending in {}: 'coldchain resume {}' continues it "
                            "or, with --abandon, rolls it back",
                            to_terminal(image), target.side_files.operand()));
  }

  // Opens the chain as it was before what is pending. The former tree keeps its locks.
  Result<void> open_former(bool base_is_done) {
    former_ = std::make_unique<FormerFiles>(*tree_.files);
    const auto add = [&](ChangeTarget& target, const graph::Node& node) -> Result<void> {
      Result<std::unique_ptr<io::File>> view =
          edit::former_view(*node.file, target.side_files, examiner_of(node));
      if (!view)
        return fail(with_context(view.error(), to_terminal(node.filename)));
      if (*view)
        former_->add(std::move(*view));
      return {};
    };
    TRY(add(*top_, *nodes_.front()));
    if (!base_is_done)
      TRY(add(*base_target_, base()));
    former_top_ = TRY(graph::open(*former_, policy_for_links(request_.common),
                                  {.name = request_.image,
                                   .is_path = request_.common.is_path,
                                   .format = request_.common.format,
                                   .is_image_opts = request_.common.image_opts}));
    NodeChain former = graph::chain_of(*former_top_);
    if (base_ >= former.size() || !former[base_]->is_open())
      return fail(ErrorCode::refused, "the chain is shorter than it was, or broken");
    TRY(check_same_files(former, graph::chain_of(*tree_.top)));
    nodes_ = std::move(former);
    return {};
  }

  static edit::Examine examiner_of(const graph::Node& node) {
    if (node.qcow2_image() != nullptr)
      return examine;
    // A raw image has nothing that could be wrong. Others may have written to what it was made
    // longer by, so that it stays.
    return [size = node.file->size()](const io::File& /*image*/) -> Result<edit::Examined> {
      return edit::Examined{.image_end = size};
    };
  }

  Result<ExitStatus> begin() {
    warn_of_links(nodes_, world_);
    TRY(make_plan());
    TRY(look_for_dependents());
    if (!request_.force && !dependents_.empty())
      return fail(refused_for_dependents());
    TRY(prepare_overlays());
    TRY(check_agreed(world_.agreement, [this] { return report::commit_json(facts(true)); }));
    TRY(edit::check_room(commit_.data, *base_change_, *base_target_->image,
                         base_target_->side_files));
    return carry_out();
  }

  Result<ExitStatus> go_on(bool base_may_change) {
    TRY(make_plan());
    // When the base has all, the commit itself may have pointed others there.
    if (!request_.force && base_may_change) {
      TRY(look_for_dependents());
      if (!dependents_.empty())
        return fail(refused_for_new_dependents());
    }
    TRY(prepare_overlays());
    TRY(check_agreed_digest(world_.agreement, commit_.change.digest, top_->side_files.operand()));
    return carry_out();
  }

  Result<ExitStatus> carry_out() {
    world_.catch_interrupts();
    edit::FreshData data;
    data.write = [this](edit::FreshWriter& /*writer*/) -> Result<void> {
      TRY(edit::commit_part(*base_change_, *base_target_->image, base_target_->side_files,
                            commit_.change, commit_.data));
      return overlays_.carry_out();
    };
    return finish(data);
  }

  // The base has all of it, and says so.
  Result<ExitStatus> empty_top() {
    TRY(make_chains());
    TRY(plan_top());
    TRY(prepare_overlays());
    edit::FreshData data;
    data.write = [this](edit::FreshWriter& /*writer*/) -> Result<void> {
      TRY(ops::check_committed(*chain_, base_, *base_chain_, world_.workers()));
      return overlays_.carry_out();
    };
    return finish(data);
  }

  Result<ExitStatus> finish(const edit::FreshData& data) {
    const Result<void> done =
        edit::commit_part(*top_change_, *top_->image, top_->side_files, emptying_.change, data);
    if (!done) {
      // Where the base was not begun, nothing is pending.
      if (!base_target_->side_files.has_pending().value_or(true))
        (void)edit::resume(*top_->image, top_->side_files, true, examine);
      return fail(done.error());
    }
    meter_.finish();
    return end_done();
  }

  // Both images are done: their side files go, that of the top last, since it leads to the base.
  Result<ExitStatus> end_done() {
    if (TRY(base_target_->side_files.has_pending()))
      TRY(base_target_->side_files.remove_pending());
    TRY(edit::resume(*top_->image, top_->side_files, false, examine));
    if (empties())
      give_back_unused(*top_->image);
    // Not before: who goes on reads the base as it was. Nothing is lost where that fails or was
    // stopped, but room.
    (void)edit::give_back(*base_target_->image, commit_.freed, std::nullopt);
    TRY(tell());
    return success;
  }

  static void give_back_unused(io::WritableFile& image) {
    if (const Result<ops::Unused> unused = ops::find_unused(image))
      (void)edit::give_back(image, unused->ranges, unused->end);
  }

  Result<ExitStatus> abandon(const std::optional<edit::JournalHead>& top,
                             const std::optional<edit::JournalHead>& base_pending) {
    // Of what is done only the side files are left.
    if (top && top->state == edit::JournalState::done) {
      world_.err("the commit is done; there is nothing to roll back\n");
      return end_done();
    }
    rolls_back_ = true;
    const bool has_data = base_pending && base_pending->state != edit::JournalState::applying;
    // Where an image was changed since, the plan is of another commit.
    const bool is_known =
        has_data && plan_former() && edit::is_same_plan(base_pending->facts, commit_.change.digest);
    nodes_ = graph::chain_of(*tree_.top);  // as they are
    // The top says whether it can go back at all.
    const edit::ResumeOutcome ended =
        TRY(edit::resume(*top_->image, top_->side_files, true, examine));
    const edit::ResumeOutcome base_ended = TRY(
        edit::resume(*base_target_->image, base_target_->side_files, true, examiner_of(base())));
    const report::ToldImage told_top{request_.image, top_->side_files.operand()};
    const report::ToldImage told_base{base().filename, base_target_->side_files.operand()};
    std::string text =
        report::given_up_text(told_top, told_base, ended.resumed == edit::Resumed::left,
                              base_ended.resumed == edit::Resumed::left);
    // The top, or overlays of it, may read by now what the base got.
    if (state_of(base_pending) == edit::JournalState::done)
      text = report::nearly_done_text(told_top, told_base);
    else if (base_ended.resumed == edit::Resumed::nothing_pending &&
             ended.resumed == edit::Resumed::nothing_pending)
      text = fmt::format("Nothing is pending for {}.\n", to_terminal(request_.image));
    else if (has_data)
      text += is_known ? report::changed_text(facts(false))
                       : report::maybe_changed_text(request_.image, base().filename);
    if (has_data && base().file->size() > base_pending->facts.size_before &&
        base().qcow2_image() == nullptr)
      text += report::longer_text(base().filename, base_pending->facts.size_before);
    // Who commits is told something else on the standard output.
    if (request_.argument)
      TRY(world_.out(text));
    else
      world_.err(text);
    return success;
  }

  Result<void> plan_former() {
    TRY(open_former(false));
    return make_plan();
  }

  [[nodiscard]] report::CommitFacts facts(bool is_plan) const {
    return {.commit = &commit_,
            .emptying = empties() ? &emptying_ : nullptr,
            .image = request_.image,
            .base = base().filename,
            .dependents = dependents_,
            .searched = searched_,
            .reparented = overlays_.told(),
            .is_plan = is_plan,
            .planned = is_plan ? planned(world_, written_and_read()) : report::Planned()};
  }

  [[nodiscard]] NodeChain written_and_read() const {
    NodeChain nodes = nodes_;
    const NodeChain overlays = overlays_.images();
    nodes.insert(nodes.end(), overlays.begin(), overlays.end());
    return nodes;
  }

  Result<void> tell() {
    const report::CommitFacts facts = this->facts(request_.is_plan);
    world_.err(report::commit_warnings(facts));
    if (request_.common.json())
      return world_.out(report::commit_json(facts));
    if (request_.is_plan)
      return world_.out(report::commit_text(facts));
    return request_.quiet ? Result<void>{} : world_.out("Image committed.\n");
  }

  const CommitRequest& request_;
  World& world_;
  ProgressMeter meter_;
  OpenedTree tree_;
  std::unique_ptr<FormerFiles> former_;
  std::unique_ptr<graph::Node> former_top_;  // the tree as it was, where something is pending
  NodeChain nodes_;
  std::size_t base_ = 1;  // in them
  std::optional<ChangeTarget> top_;
  std::optional<ChangeTarget> base_target_;
  std::optional<graph::Chain> chain_;
  std::optional<graph::Chain> base_chain_;
  std::optional<edit::Transaction> base_change_;
  std::optional<edit::Transaction> top_change_;
  ops::Commit commit_;
  ops::Emptying emptying_;
  std::vector<std::string> dependents_;
  std::vector<std::string> searched_;  // folders where they were looked for
  bool rolls_back_ = false;            // a plan only tells what has changed
  Reparenting overlays_;
};

}  // namespace

Result<ExitStatus> run_commit(const CommitRequest& wanted, World& world) {
  CommitRequest request = wanted;
  take_consent(world, request.common, request.folders, &request.force,
               &request.unreadable_are_zeros);
  take_copy_options(world, request.copy);
  note_confines(request.folders, request.common.policy);
  TRY(check_cache(request.cache));
  const std::uint64_t rate = TRY(parse_rate(request.copy.rate));
  return CommitRun(request, rate, world).run();
}

Result<ExitStatus> give_up_commit(const CommitRequest& request, World& world) {
  return CommitRun(request, 0, world).give_up();
}

}  // namespace coldchain::cli
