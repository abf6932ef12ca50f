// SPDX-License-Identifier: MIT
// pull: what the layers below provide moves into an image. plan pull: what that would cost.
#include "pull.hpp"

#include "allocate.hpp"
#include "backing_name.hpp"
#include "chain_change.hpp"
#include "change.hpp"
#include "consent.hpp"
#include "host_path.hpp"
#include "link_warnings.hpp"
#include "pending_warning.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/storage.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/pull.hpp>
#include <coldchain/report/pull_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

void options(CommandLine app, PullRequest& pull) {
  add_pull_options(app, pull);
  app.add_option("-b", pull.base, "The layer that becomes the backing file; the default is none")
      .type_name("BASE");
  add_range_option(app, pull.range);
  app.add_flag("--snapshots", pull.fills_snapshots,
               "Also copy what internal snapshots read through the removed layers");
  app.add_flag("--detect-zeroes", pull.detects_zeroes,
               "Allocate no clusters for data that is all zeros");
  pull.compressed = ops::Compressed::keep;
  Option unpack = app.add_flag(
      "--decompress", [&pull] { pull.compressed = ops::Compressed::unpack; },
      "Unpack compressed clusters instead of copying them as they are");
  app.add_flag(
         "--recompress", [&pull] { pull.compressed = ops::Compressed::recompress; },
         "Recompress clusters of another size or compression instead of unpacking them")
      .excludes(unpack);
  app.footer("Example: coldchain pull -b base.qcow2 top.qcow2");
}

void plan_options(CommandLine app, PullRequest& pull) {
  options(app, pull);
  pull.is_plan = true;
  app.footer("Example: coldchain plan pull -b base.qcow2 top.qcow2");
}

// A part of the disk is an allocation that stays thin.
Result<ExitStatus> run_verb(const PullRequest& pull, World& world) {
  PullRequest request = pull;
  if (pull.range && pull.base)
    return fail(ErrorCode::invalid_argument,
                "--range keeps the backing file, and -b names another one");
  if (pull.range && (pull.detects_zeroes || pull.fills_snapshots))
    return fail(ErrorCode::invalid_argument,
                "--detect-zeroes and --snapshots cannot be used with --range");
  if (pull.range && pull.compressed == ops::Compressed::recompress)
    return fail(ErrorCode::invalid_argument,
                "--recompress cannot be used with --range, which unpacks compressed clusters");
  if (pull.range) {
    request.compressed = ops::Compressed::unpack;
    request.allocation = {ops::Places::thin, TRY(parse_range(*pull.range))};
  }
  return run_pull(request, world);
}

class PullRun {
 public:
  PullRun(const PullRequest& request, std::uint64_t rate, World& world)
      : request_(request), world_(world), meter_(world, request.copy.shows_progress, rate) {}

  // What was pending before may have to be ended first: then the chain is another one.
  Result<ExitStatus> run() {
    for (;;) {
      if (const Result<void> opened = open(); !opened)
        return refuse(opened.error());
      const Result<std::optional<ExitStatus>> done = request_.is_plan ? plan() : pull();
      if (!done)
        return refuse(done.error());
      if (*done)
        return **done;
    }
  }

  // A pull whose data the image refers to goes back if it can be planned again.
  Result<edit::Resumed> give_up() {
    rolls_back_ = true;
    const Result<void> opened = open();  // before we hold locks ourselves
    if (!is_allowed_)
      return fail(opened.error());
    ChangeTarget target = TRY(open_for_change(*tree_.top->file, request_.image, request_.folders));
    Result<edit::Resumed> done = opened ? take_back(target) : fail(opened.error());
    const auto says = [&](ErrorCode code) { return !done && done.error().code == code; };
    const bool may_be_planned_later = says(ErrorCode::io_error) || says(ErrorCode::locked) ||
                                      says(ErrorCode::permission_denied) ||
                                      says(ErrorCode::interrupted) || says(ErrorCode::not_found) ||
                                      says(ErrorCode::invalid_argument);
    if (done || may_be_planned_later)
      return done;
    // Nothing is left of a change that nobody has looked at.
    const auto pending = TRY(edit::read_pending(*target.image, target.side_files));
    if (!pending || pending->facts.change.operation != operation())
      return fail(ErrorCode::refused, "the change is no longer pending: another run has ended it");
    return edit::leave(target.side_files);
  }

 private:
  Result<ExitStatus> refuse(const Error& error) {
    // A rebase that is not resumed has qemu-img's status.
    if (error.code != ErrorCode::locked || (request_.is_rebase && !request_.image_file))
      return fail(error);
    world_.complain(error);
    return in_use;
  }

  Result<void> open() {
    nodes_.clear();
    tree_ = {};  // with its locks
    tree_ = TRY(open_tree(request_.common, request_.image, true, world_));
    locked_.reset();
    TRY(check_is_file(*tree_.top, request_.image_file));
    if (tree_.top->qcow2_image() == nullptr)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is {}: only a qcow2 image has a backing file",
                              to_terminal(request_.image), to_terminal(tree_.top->format)));
    nodes_ = graph::chain_of(*tree_.top);
    TRY(check_probed(*tree_.top, request_.common, request_.image));
    TRY(check_links_allowed());
    is_allowed_ = true;
    TRY(check_recorded(tree_, request_.common, request_.image));
    return look_at_chain();
  }

  // What an option of this run can allow is no reason to give anything up.
  [[nodiscard]] Result<void> check_links_allowed() const {
    for (const graph::Node* node : nodes_) {
      const bool is_denied =
          std::any_of(node->findings.begin(), node->findings.end(), [](const auto& finding) {
            return finding.code == finding::Code::link_probed_has_links ||
                   finding.code == finding::Code::link_outside_root;
          });
      if (is_denied && node->gap)
        return fail(*node->gap);
    }
    return {};
  }

  Result<void> look_at_chain() {
    nodes_ = graph::chain_of(*tree_.top);
    if (!nodes_.back()->is_open())
      return fail(*nodes_.back()->gap);
    options_ = {};
    options_.force = request_.force || rolls_back_;
    options_.fills_snapshots = request_.fills_snapshots;
    options_.detects_zeroes = request_.detects_zeroes;
    options_.compressed = request_.compressed;
    options_.workers = world_.workers();
    options_.is_plan = request_.is_plan;
    if (request_.is_rebase) {
      TRY(look_at_new_base());
    } else if (request_.allocation) {
      options_.allocation = request_.allocation;
    } else {
      options_.base = TRY(find_base());
      if (options_.base != 0)
        options_.link = TRY(link_to_layer(*tree_.files, request_.common, nodes_, options_.base));
    }
    options_.progress = meter_.progress();
    return {};
  }

  // What the header will lead to: below the image already, or another chain.
  Result<void> look_at_new_base() {
    onto_.reset();
    if (!request_.base || request_.base->empty())
      return {};
    options_.link = {*request_.base, request_.base_format};
    edit::Transaction transaction(*tree_.top->file);
    TRY(ops::stage_backing_link(transaction, tree_.top->qcow2_image()->header(), options_.link));
    io::OpenPolicy policy = policy_of(request_.common);
    policy.test_locks = policy.test_locks && request_.is_plan;  // else they are going to be held
    const auto linked = TRY(graph::open_chain_of(
        *tree_.files, policy, std::make_unique<io::OverlayFile>(transaction.view()),
        tree_.top->filename));
    if (linked->backing() == nullptr || !linked->backing()->is_open())
      return fail(is_base_locked(*linked) ? ErrorCode::locked : ErrorCode::not_found,
                  fmt::format("Could not open new backing file '{}': {}",
                              to_terminal(*request_.base), why_not_open(*linked)));
    for (std::size_t i = 1; i < nodes_.size(); ++i) {
      if (!is_same_chain(below(*linked), layers_from(i)))
        continue;
      options_.base = i;
      return {};
    }
    onto_ = std::move(linked->children.front());
    onto_chain_ = TRY(graph::Chain::make(
        *onto_, {.unreadable_are_zeros = request_.unreadable_are_zeros || rolls_back_}));
    options_.onto = &*onto_chain_;
    return {};
  }

  static NodeChain below(const graph::Node& image) {
    NodeChain nodes = graph::chain_of(image);
    nodes.erase(nodes.begin());
    return nodes;
  }

  [[nodiscard]] std::span<const graph::Node* const> layers_from(std::size_t first) const {
    return std::span(nodes_).subspan(first);
  }

  static bool is_base_locked(const graph::Node& image) {
    const graph::Node* base = image.backing();
    return base != nullptr && base->gap && base->gap->code == ErrorCode::locked;
  }

  static std::string why_not_open(const graph::Node& image) {
    const graph::Node* base = image.backing();
    return base != nullptr && !base->findings.empty() ? base->findings.back().detail
                                                      : "its name leads nowhere";
  }

  [[nodiscard]] Error about_image(Error error) const {
    return with_context(std::move(error), to_terminal(request_.image));
  }

  [[nodiscard]] Result<std::size_t> find_base() const {
    if (request_.argument)
      return find_base_of_pending(*request_.argument);
    if (!request_.base)
      return std::size_t{0};
    if (request_.base->empty())
      return fail(ErrorCode::invalid_argument,
                  "-b names no image: leave -b out for an image without a backing file");
    const Result<std::unique_ptr<io::File>> file = tree_.files->open_operand(*request_.base);
    for (std::size_t i = 1; i < nodes_.size(); ++i) {
      const bool is_it = file ? nodes_[i]->file != nullptr &&
                                    nodes_[i]->file->status().identity == (*file)->status().identity
                              : nodes_[i]->name == *request_.base;
      if (is_it)
        return i;
    }
    if (!file)
      return fail(with_context(file.error(),
                               fmt::format("Could not open '{}'", to_terminal(*request_.base))));
    return fail(ErrorCode::refused,
                fmt::format("'{}' is not below '{}': 'coldchain tree' shows the chain",
                            to_terminal(*request_.base), to_terminal(request_.image)));
  }

  [[nodiscard]] Result<std::size_t> find_base_of_pending(std::uint64_t argument) const {
    if (argument == 0)
      return std::size_t{0};
    for (std::size_t i = 1; i < nodes_.size(); ++i) {
      if (nodes_[i]->file && ops::pull_argument(nodes_[i]) == argument)
        return i;
    }
    return fail(ErrorCode::refused,
                fmt::format("the base of the pending pull is no longer in the chain: roll the pull "
                            "back with 'coldchain resume --abandon {}'",
                            operand_of(*tree_.top, request_.folders)));
  }

  Result<std::optional<ExitStatus>> plan() {
    TRY(warn_of_pending(request_.common, *tree_.top, world_, request_.folders));
    warn_of_links(nodes_, world_);
    TRY(check_may_change(*tree_.top, request_.common.force_share));
    TRY(check_may_read(layers_below(), request_.common.force_share));
    TRY(make_plan(*tree_.top->file));
    return std::optional(TRY(tell()));
  }

  Result<void> make_plan(const io::File& image) {
    chain_ = TRY(graph::Chain::make(
        *tree_.top,
        {.written = 0, .unreadable_are_zeros = request_.unreadable_are_zeros || rolls_back_}));
    transaction_.emplace(image);
    Result<ops::Pull> planned = ops::plan_pull(*transaction_, *chain_, options_);
    if (!planned)
      return fail(about_image(planned.error()));
    pull_ = std::move(*planned);
    pull_.change.operation = operation();  // which a rebase has from here
    if (request_.is_rebase)
      pull_.change.verb = fmt::format(
          "rebase -b {} -F {}", to_shell_word(request_.base.value_or("")), request_.base_format);
    return {};
  }

  // Nothing where all must be opened again.
  Result<std::optional<ExitStatus>> pull() {
    ChangeTarget target =
        TRY(open_for_change(*tree_.top->file, tree_.top->filename, request_.folders));
    TRY(lock_layers());
    TRY(check_may_write(world_, {tree_.top.get()}));
    const edit::ResumeOutcome pending = TRY(end_pending(target));
    const bool is_this =
        pending.operation == operation() && pending.argument == ops::pull_argument(base_node()) &&
        (!request_.allocation || pending.verb == ops::to_command(*request_.allocation)) &&
        (pending.operation != edit::Operation::pull || has_same_options(pending.verb));
    // Storage comes when nothing is pending any more.
    if (pending.resumed == edit::Resumed::finished && is_this && !request_.allocation) {
      if (!request_.is_rebase)
        TRY(world_.out(fmt::format("'{}' was interrupted, and is finished now.\n", pending.verb)));
      return std::optional(success);
    }
    if (pending.resumed == edit::Resumed::needs_plan && !is_this)
      return fail(ErrorCode::refused,
                  fmt::format("'{}'{} is pending: 'coldchain resume {}' continues it or, with "
                              "--abandon, rolls it back",
                              pending.verb,
                              pending.operation == operation() && !request_.allocation
                                  ? " with another base or other options"
                                  : "",
                              target.side_files.operand()));
    if (pending.resumed != edit::Resumed::needs_plan &&
        pending.resumed != edit::Resumed::nothing_pending &&
        pending.resumed != edit::Resumed::nothing_changed)
      return std::nullopt;
    if (request_.argument && pending.resumed != edit::Resumed::needs_plan)
      return fail(ErrorCode::refused, "the change is no longer pending: another run has ended it");
    const bool is_new = pending.resumed != edit::Resumed::needs_plan;
    return std::optional(TRY(pull_into(target, is_new)));
  }

  // As the pull whose side file says `verb`.
  [[nodiscard]] bool has_same_options(const std::string& verb) const {
    return ops::has_option(verb, ops::detect_zeroes_option) == request_.detects_zeroes &&
           ops::has_option(verb, ops::snapshots_option) == request_.fills_snapshots &&
           ops::compressed_of(verb) == request_.compressed;
  }

  // All layers that are read, and the image itself.
  [[nodiscard]] NodeChain all_nodes() const {
    NodeChain nodes = nodes_;
    if (onto_) {
      const auto more = graph::chain_of(*onto_);
      nodes.insert(nodes.end(), more.begin(), more.end());
    }
    return nodes;
  }

  [[nodiscard]] const graph::Node* base_node() const {
    if (onto_)
      return onto_.get();
    return options_.base == 0 ? nullptr : nodes_[options_.base];
  }

  // What the image was before a pull that is pending. Its tree is opened anew on that; the former
  // one keeps its locks.
  Result<void> plan_pending(const ChangeTarget& target) {
    Result<std::unique_ptr<io::File>> former =
        edit::former_view(*target.image, target.side_files, examine);
    if (!former)
      return fail(about_image(former.error()));
    if (*former == nullptr)
      return make_plan(*target.image);
    io::OpenPolicy policy = policy_of(request_.common);
    policy.test_locks = false;  // they were, and we hold them now
    locked_ = std::exchange(
        tree_.top,
        TRY(graph::open_chain_of(*tree_.files, policy, std::move(*former), tree_.top->filename)));
    tree_.top->format_probed = locked_->format_probed;
    nodes_ = graph::chain_of(*tree_.top);
    // It may have more layers than the chain that was checked, and its names were asked again.
    TRY(check_probed(*tree_.top, request_.common, request_.image));
    TRY(check_links_allowed());
    TRY(lock_for_reading(layers_below()));
    TRY(look_at_chain());
    return make_plan(*tree_.top->file);
  }

  Result<ExitStatus> pull_into(ChangeTarget& target, bool is_new) {
    if (is_new) {
      warn_of_links(nodes_, world_);
      TRY(check_allocation_may_fit(target));
    }
    TRY(plan_pending(target));
    if (is_new)
      TRY(check_agreed(world_.agreement, [this] { return report::pull_json(facts(true)); }));
    else
      TRY(check_agreed_digest(world_.agreement, pull_.change.digest, target.side_files.operand()));
    world_.catch_interrupts();
    meter_.expect(edit::total_size(pull_.data.places));
    if (!transaction_->is_empty()) {
      if (const auto done = edit::commit(*transaction_, *target.image, target.side_files,
                                         pull_.change, &pull_.data);
          !done)
        return fail(about_image(done.error()));
    }
    TRY(give_storage(target));
    meter_.finish();
    return tell();
  }

  // Once nothing is pending any more: what is stopped here, the same command begins again.
  Result<void> give_storage(ChangeTarget& target) {
    if (pull_.data.places.empty())
      return {};
    meter_.begin_part();
    const Result<void> given = cli::give_storage(target, pull_.data.places,
                                                 request_.allocation->places, meter_.progress());
    return given ? given : fail(about_image(given.error()));
  }

  // Before tables are planned that take longer than the answer is worth.
  [[nodiscard]] Result<void> check_allocation_may_fit(const ChangeTarget& target) const {
    if (!request_.allocation || request_.allocation->places == ops::Places::thin)
      return {};
    const GuestRange range =
        TRY(ops::whole_clusters(*request_.allocation, 1, nodes_.front()->guest_size()));
    const std::uint64_t allocated = target.image->status().allocated;
    const Result<void> fits =
        check_storage(target, range.size() > allocated ? range.size() - allocated : 0);
    return fits ? fits : fail(about_image(fits.error()));
  }

  Result<edit::Resumed> take_back(ChangeTarget& target) {
    TRY(lock_layers());
    TRY(plan_pending(target));
    return edit::give_up(*target.image, target.side_files, pull_.change, pull_.data, examine);
  }

  [[nodiscard]] edit::Operation operation() const {
    if (request_.allocation)
      return edit::Operation::allocate;
    return request_.is_rebase ? edit::Operation::rebase : edit::Operation::pull;
  }

  // Before anything is looked at again, also the image itself, which is locked for writing.
  [[nodiscard]] Result<void> lock_layers() const {
    TRY(lock_for_reading(layers_below()));
    return check_unchanged(*tree_.files, all_nodes());
  }

  [[nodiscard]] NodeChain layers_below() const {
    const NodeChain nodes = all_nodes();
    return {nodes.begin() + 1, nodes.end()};
  }

  Result<edit::ResumeOutcome> end_pending(ChangeTarget& target) {
    TRY(check_nothing_else_pending(world_.agreement, target, request_.image, operation()));
    Result<edit::ResumeOutcome> outcome =
        edit::resume(*target.image, target.side_files, false, examine);
    if (!outcome)
      return fail(about_image(outcome.error()));
    outcome->verb = to_terminal(outcome->verb);
    if (outcome->resumed == edit::Resumed::abandoned || outcome->resumed == edit::Resumed::left)
      world_.err(fmt::format("the rollback of '{}' was interrupted, and is finished now\n",
                             outcome->verb));
    return outcome;
  }

  [[nodiscard]] std::optional<std::string> backing_file() const {
    if (options_.allocation && options_.allocation->range && nodes_.size() > 1)
      return nodes_[1]->name;
    return options_.link ? std::optional(options_.link->name) : std::nullopt;
  }

  [[nodiscard]] report::PullFacts facts(bool is_plan) const {
    return {.pull = &pull_,
            .image = request_.image,
            .backing_file = backing_file(),
            .allocation = options_.allocation,
            .is_plan = is_plan,
            .planned = is_plan ? planned(world_, all_nodes()) : report::Planned()};
  }

  Result<ExitStatus> tell() {
    const report::PullFacts facts = this->facts(request_.is_plan);
    world_.err(report::pull_warnings(facts));
    // qemu-img says nothing of a rebase.
    const bool is_silent = request_.is_rebase && !request_.is_plan && !request_.common.json();
    if (!request_.quiet && !is_silent)
      TRY(world_.out(request_.common.json() ? report::pull_json(facts) : report::pull_text(facts)));
    return success;
  }

  const PullRequest& request_;
  World& world_;
  ProgressMeter meter_;
  bool rolls_back_ = false;
  bool is_allowed_ = false;  // to follow the links of the image
  OpenedTree tree_;
  std::unique_ptr<graph::Node> locked_;  // the tree whose files are locked, where that is another
  NodeChain nodes_;
  std::unique_ptr<graph::Node> onto_;  // of a rebase, where it is not below the image already
  std::optional<graph::Chain> onto_chain_;
  ops::PullOptions options_;
  std::optional<graph::Chain> chain_;
  std::optional<edit::Transaction> transaction_;
  ops::Pull pull_;
};

}  // namespace

void add_pull_options(CommandLine app, PullRequest& pull) {
  add_common_options(app, pull.common);
  app.add_flag("--force", pull.force,
               "Run even if an internal snapshot reads through a layer that is removed");
  add_unreadable_option(app, pull.unreadable_are_zeros);
  app.add_flag("-q", pull.quiet, "Print only warnings");
  add_copy_options(app, pull.copy);
  add_state_option(app, pull.folders);
  app.add_option("IMAGE", pull.image, "Path or block device").required().type_name("");
}

Result<ExitStatus> run_pull(const PullRequest& wanted, World& world) {
  PullRequest request = wanted;
  take_consent(world, request.common, request.folders, &request.force,
               &request.unreadable_are_zeros);
  take_copy_options(world, request.copy);
  note_confines(request.folders, request.common.policy);
  return PullRun(request, TRY(parse_rate(request.copy.rate)), world).run();
}

Result<edit::Resumed> give_up_pull(const PullRequest& request, World& world) {
  return PullRun(request, 0, world).give_up();
}

void register_pull(CommandLine app, World& world, int& status) {
  add_verb<PullRequest>(app, "pull", "Copy the data of the layers below into an image", world,
                        status, options, run_verb);
}

void add_pull_plan(CommandLine plan, World& world, int& status) {
  add_looking_verb<PullRequest>(plan, "pull", "Show what a pull would do", world, status,
                                plan_options, run_verb);
}

}  // namespace coldchain::cli
