// SPDX-License-Identifier: MIT
// pull: what the layers below provide moves into an image. plan pull: what that would cost.
#include "pull.hpp"

#include "change.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/io/lock.hpp>
#include <coldchain/ops/pull.hpp>
#include <coldchain/report/pull_report.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

void options(CLI::App& app, PullRequest& pull) {
  add_common_options(app, pull.common);
  app.add_option("-b", pull.base, "The layer that becomes the backing file; none without it")
      ->type_name("BASE");
  app.add_flag("--force", pull.force,
               "Also where an internal snapshot reads through what would go");
  app.add_flag("-q", pull.quiet, "Say nothing");
  app.add_flag("-p,--progress", pull.shows_progress, "Show how far it is");
  add_state_option(app, pull.folders);
  app.add_option("IMAGE", pull.image, "Path or block device")->required()->type_name("");
  app.footer("Example: coldchain pull -b base.qcow2 top.qcow2");
}

void plan_options(CLI::App& app, PullRequest& pull) {
  options(app, pull);
  pull.is_plan = true;
}

class PullRun {
 public:
  PullRun(const PullRequest& request, World& world) : request_(request), world_(world) {}

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
    const Result<void> opened = open();  // before we hold locks ourselves
    const auto files = TRY(world_.files(policy_of(request_.common)));
    ChangeTarget target = TRY(open_for_change(*files, request_.image, request_.folders));
    Result<edit::Resumed> done = opened ? take_back(target) : fail(opened.error());
    const auto says = [&](ErrorCode code) { return !done && done.error().code == code; };
    const bool may_be_planned_later = says(ErrorCode::io_error) || says(ErrorCode::locked) ||
                                      says(ErrorCode::permission_denied) ||
                                      says(ErrorCode::interrupted);
    return done || may_be_planned_later ? std::move(done) : edit::leave(target.side_files);
  }

 private:
  Result<ExitStatus> refuse(const Error& error) {
    if (error.code != ErrorCode::locked)
      return fail(error);
    world_.complain(error);
    return in_use;
  }

  Result<void> open() {
    nodes_.clear();
    tree_ = {};  // with its locks
    tree_ = TRY(open_tree(request_.common, request_.image, true, world_));
    locked_.reset();
    if (tree_.top->qcow2_image() == nullptr)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is {}: only a qcow2 image has a backing file",
                              to_terminal(request_.image), to_terminal(tree_.top->format)));
    nodes_ = graph::chain_of(*tree_.top);
    TRY(check_probed());
    TRY(check_recorded());
    return look_at_chain();
  }

  Result<void> look_at_chain() {
    nodes_ = graph::chain_of(*tree_.top);
    options_ = {};
    options_.force = request_.force;
    options_.workers = world_.workers();
    if (request_.is_rebase) {
      TRY(look_at_new_base());
    } else {
      options_.base = TRY(find_base());
      if (options_.base != 0)
        options_.link = TRY(link_to(options_.base));
    }
    options_.progress = [this](std::uint64_t done, std::uint64_t total) {
      if (request_.shows_progress)
        world_.err(fmt::format("    ({:.2f}/100%)\r",
                               100.0 * static_cast<double>(done) / static_cast<double>(total)));
      return !world_.is_interrupted();
    };
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
      return fail(ErrorCode::not_found,
                  fmt::format("Could not open new backing file '{}': {}",
                              to_terminal(*request_.base), why_not_open(*linked)));
    for (std::size_t i = 1; i < nodes_.size(); ++i) {
      if (!is_same_chain(graph::chain_of(*linked), i))
        continue;
      options_.base = i;
      return {};
    }
    onto_ = std::move(linked->children.front());
    onto_chain_ = TRY(graph::Chain::make(*onto_));
    options_.onto = &*onto_chain_;
    return {};
  }

  static std::string why_not_open(const graph::Node& image) {
    const graph::Node* base = image.backing();
    return base != nullptr && !base->findings.empty() ? base->findings.back().detail
                                                      : "its name leads nowhere";
  }

  [[nodiscard]] Error about_image(Error error) const {
    return with_context(std::move(error), to_terminal(request_.image));
  }

  // However a name is spelled, and whatever links lead there.
  [[nodiscard]] Result<io::Location> locate(const graph::Node& node) const {
    Result<io::Location> location = tree_.files->locate(node.filename);
    return location ? std::move(location)
                    : fail(with_context(location.error(), to_terminal(node.filename)));
  }

  // Who could write to a raw disk could write a header into it that names any file.
  [[nodiscard]] Result<void> check_probed() const {
    if (!tree_.top->format_probed || !request_.common.policy.root.empty())
      return {};
    const io::Location top = TRY(locate(*tree_.top));
    for (const graph::Node* node : nodes_) {
      if (node->is_open() && TRY(locate(*node)).folder != top.folder)
        return fail(
            ErrorCode::refused,
            fmt::format("the format of '{}' was only probed, and its chain leads to another "
                        "folder ('{}'): give -f qcow2 if you trust it",
                        to_terminal(request_.image), to_terminal(node->filename)));
    }
    return {};
  }

  // What is typed together with the image is gone when a pull is resumed, and no guest saw it.
  [[nodiscard]] Result<void> check_recorded() const {
    if (!nodes_.back()->is_open())
      return {};  // which is told better when it is to be read
    const auto recorded = TRY(graph::open_chain_of(
        *tree_.files, policy_for_links(), std::make_unique<io::OverlayFile>(*tree_.top->file),
        tree_.top->filename));
    if (!is_same_chain(graph::chain_of(*recorded), 1))
      return fail(ErrorCode::refused,
                  fmt::format("the chain that is given is not the one that '{}' records",
                              to_terminal(request_.image)));
    return {};
  }

  [[nodiscard]] io::OpenPolicy policy_for_links() const {
    io::OpenPolicy policy = policy_of(request_.common);
    policy.test_locks = false;  // they were, and we may hold them now
    policy.allow_probe = true;  // as far as that goes, it went before
    return policy;
  }

  [[nodiscard]] Result<std::size_t> find_base() const {
    if (request_.argument)
      return find_base_of_pending(*request_.argument);
    if (!request_.base)
      return std::size_t{0};
    if (request_.base->empty())
      return fail(ErrorCode::invalid_argument,
                  "-b names no image: leave it out, if there shall be no backing file");
    const Result<std::unique_ptr<io::File>> file = tree_.files->open(*request_.base);
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
                fmt::format("'{}' is not below '{}': 'coldchain tree' shows what is",
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
                "the base of the pull that is pending is not in the chain any more: 'coldchain "
                "resume --abandon' gives it up");
  }

  // The name by which the layer above knows it, if that leads to the same from the image, too; else
  // where it lies, if that does.
  [[nodiscard]] Result<ops::BackingLink> link_to(std::size_t base) const {
    if (base >= nodes_.size() || !nodes_[base]->is_open())
      return fail(ErrorCode::refused, "the chain is shorter than it was, or broken");
    const graph::Node& node = *nodes_[base];
    const io::Location location = TRY(locate(node));
    const ops::BackingLink recorded{node.name, node.format};
    if (try_out(recorded, base))
      return recorded;
    const ops::BackingLink own{location.folder + "/" + location.name, node.format};
    TRY(try_out(own, base));
    return own;
  }

  // The image is opened with that link, by the name that was given and by its own.
  [[nodiscard]] Result<void> try_out(const ops::BackingLink& link, std::size_t base) const {
    edit::Transaction transaction(*tree_.top->file);
    TRY(ops::stage_backing_link(transaction, tree_.top->qcow2_image()->header(), link));
    std::vector<std::string> paths = {tree_.top->filename};
    if (request_.common.policy.sysroot.empty()) {
      const io::Location own = TRY(locate(*tree_.top));
      paths.push_back(own.folder + "/" + own.name);
    }
    for (const std::string& path : paths) {
      const auto top =
          graph::open_chain_of(*tree_.files, policy_for_links(),
                               std::make_unique<io::OverlayFile>(transaction.view()), path);
      if (!top || !is_same_chain(graph::chain_of(**top), base))
        return fail(ErrorCode::refused,
                    fmt::format("from '{}' the name '{}' does not lead to '{}' with all that is "
                                "below it: nothing was changed",
                                to_terminal(path), to_terminal(link.name),
                                to_terminal(nodes_[base]->filename)));
    }
    return {};
  }

  [[nodiscard]] bool is_same_chain(const std::vector<const graph::Node*>& linked,
                                   std::size_t base) const {
    return std::equal(linked.begin() + 1, linked.end(),
                      nodes_.begin() + static_cast<std::ptrdiff_t>(base), nodes_.end(),
                      [](const graph::Node* a, const graph::Node* b) { return is_same(*a, *b); });
  }

  static bool is_same(const graph::Node& a, const graph::Node& b) {
    if (!a.is_open() || !b.is_open() || a.format != b.format)
      return false;
    if (const raw::Image* raw = a.raw_image())
      return raw->is_same(*b.raw_image());
    const auto is_same_file = [](const io::File* one, const io::File* other) {
      return one == nullptr || other == nullptr
                 ? one == other
                 : one->status().identity == other->status().identity;
    };
    return is_same_file(a.file.get(), b.file.get()) &&
           is_same_file(a.data_file.get(), b.data_file.get());
  }

  Result<std::optional<ExitStatus>> plan() {
    TRY(make_plan(*tree_.top->file));
    return std::optional(TRY(tell()));
  }

  Result<void> make_plan(const io::File& image) {
    chain_ = TRY(graph::Chain::make(*tree_.top));
    transaction_.emplace(image);
    Result<ops::Pull> planned = ops::plan_pull(*transaction_, *chain_, options_);
    if (!planned)
      return fail(about_image(planned.error()));
    pull_ = std::move(*planned);
    pull_.change.operation = operation();
    if (request_.is_rebase)
      pull_.change.verb = fmt::format(
          "rebase -b {} -F {}", to_shell_word(request_.base.value_or("")), request_.base_format);
    return {};
  }

  // Nothing where all must be opened again.
  Result<std::optional<ExitStatus>> pull() {
    ChangeTarget target = TRY(open_for_change(*tree_.files, tree_.top->filename, request_.folders));
    TRY(lock_layers());
    TRY(check_unchanged());
    const edit::ResumeOutcome pending = TRY(end_pending(target));
    const bool is_this =
        pending.operation == operation() && pending.argument == ops::pull_argument(base_node());
    if (pending.resumed == edit::Resumed::finished && is_this) {
      if (!request_.is_rebase)
        TRY(world_.out(fmt::format("'{}' was interrupted, and is finished now.\n", pending.verb)));
      return std::optional(success);
    }
    if (pending.resumed == edit::Resumed::needs_plan && !is_this)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' with another base is pending: 'coldchain resume {}' goes on "
                              "or, with --abandon, goes back",
                              pending.verb, to_shell_word(request_.image)));
    if (pending.resumed != edit::Resumed::needs_plan &&
        pending.resumed != edit::Resumed::nothing_pending &&
        pending.resumed != edit::Resumed::nothing_changed)
      return std::nullopt;
    if (request_.argument && pending.resumed != edit::Resumed::needs_plan)
      return fail(ErrorCode::refused, "what was pending has been ended meanwhile");
    return std::optional(TRY(pull_into(target)));
  }

  // All layers that are read, and the image itself.
  [[nodiscard]] std::vector<const graph::Node*> all_nodes() const {
    std::vector<const graph::Node*> nodes = nodes_;
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
    Result<std::unique_ptr<io::OverlayFile>> former =
        edit::former_view(*target.image.file, target.side_files, examine);
    if (!former)
      return fail(about_image(former.error()));
    if (*former == nullptr)
      return make_plan(*target.image.file);
    locked_ = std::exchange(
        tree_.top, TRY(graph::open_chain_of(*tree_.files, policy_for_links(), std::move(*former),
                                            tree_.top->filename)));
    TRY(look_at_chain());
    return make_plan(*tree_.top->file);
  }

  Result<ExitStatus> pull_into(ChangeTarget& target) {
    TRY(plan_pending(target));
    if (transaction_->is_empty())
      return tell();
    world_.catch_interrupts();
    if (const auto done =
            edit::commit(*transaction_, target.image, target.side_files, pull_.change, &pull_.data);
        !done)
      return fail(about_image(done.error()));
    if (request_.shows_progress)
      world_.err("    (100.00/100%)\n");
    return tell();
  }

  Result<edit::Resumed> take_back(ChangeTarget& target) {
    TRY(lock_layers());
    TRY(check_unchanged());
    TRY(plan_pending(target));
    return edit::give_up(target.image, target.side_files, pull_.change, pull_.data, examine);
  }

  [[nodiscard]] edit::Operation operation() const {
    return request_.is_rebase ? edit::Operation::rebase : edit::Operation::pull;
  }

  Result<void> lock_layers() {
    for (const graph::Node* node : all_nodes()) {
      if (node == tree_.top.get())
        continue;
      for (const io::File* file : {node->file.get(), node->data_file.get()}) {
        const Result<void> held = file != nullptr ? io::hold_read_locks(*file) : Result<void>{};
        if (!held)
          return fail(with_context(
              held.error(), fmt::format("Could not lock '{}'", to_terminal(node->filename))));
      }
    }
    return {};
  }

  // Between looking and locking, somebody may have come.
  [[nodiscard]] Result<void> check_unchanged() const {
    for (const graph::Node* node : all_nodes()) {
      if (node->file)
        TRY(check_unchanged(node->filename, *node->file));
      if (node->data_file)
        TRY(check_unchanged(node->data_filename, *node->data_file));
    }
    return {};
  }

  [[nodiscard]] Result<void> check_unchanged(const std::string& filename,
                                             const io::File& opened) const {
    const std::unique_ptr<io::File> now = TRY(tree_.files->open(filename));
    const io::FileStatus& then = opened.status();
    if (now->status().identity != then.identity || now->status().modified != then.modified ||
        now->size() != then.size)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' was changed meanwhile", to_terminal(filename)));
    return {};
  }

  Result<edit::ResumeOutcome> end_pending(ChangeTarget& target) {
    Result<edit::ResumeOutcome> outcome =
        edit::resume(target.image, target.side_files, false, examine);
    if (!outcome)
      return fail(about_image(outcome.error()));
    outcome->verb = to_terminal(outcome->verb);
    if (outcome->resumed == edit::Resumed::abandoned || outcome->resumed == edit::Resumed::left)
      world_.err(fmt::format("'{}' was being given up, and is now\n", outcome->verb));
    return outcome;
  }

  Result<ExitStatus> tell() {
    const report::PullFacts facts{
        .pull = &pull_,
        .image = request_.image,
        .backing_file = options_.link ? std::optional(options_.link->name) : std::nullopt,
        .is_plan = request_.is_plan};
    world_.err(report::pull_warnings(facts));
    // qemu-img says nothing of a rebase.
    const bool is_silent = request_.is_rebase && !request_.is_plan && !request_.common.json();
    if (!request_.quiet && !is_silent)
      TRY(world_.out(request_.common.json() ? report::pull_json(facts) : report::pull_text(facts)));
    return success;
  }

  const PullRequest& request_;
  World& world_;
  OpenedTree tree_;
  std::unique_ptr<graph::Node> locked_;  // the tree whose files are locked, where that is another
  std::vector<const graph::Node*> nodes_;
  std::unique_ptr<graph::Node> onto_;  // of a rebase, where it is not below the image already
  std::optional<graph::Chain> onto_chain_;
  ops::PullOptions options_;
  std::optional<graph::Chain> chain_;
  std::optional<edit::Transaction> transaction_;
  ops::Pull pull_;
};

}  // namespace

Result<ExitStatus> run_pull(const PullRequest& request, World& world) {
  return PullRun(request, world).run();
}

Result<edit::Resumed> give_up_pull(const PullRequest& request, World& world) {
  return PullRun(request, world).give_up();
}

void register_pull(CLI::App& app, World& world, int& status) {
  add_verb<PullRequest>(app, "pull", "Move what the layers below provide into an image", world,
                        status, options, run_pull);
}

void add_pull_plan(CLI::App& plan, World& world, int& status) {
  add_verb<PullRequest>(plan, "pull", "What a pull would do", world, status, plan_options,
                        run_pull);
}

}  // namespace coldchain::cli
