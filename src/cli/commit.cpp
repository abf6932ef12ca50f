// SPDX-License-Identifier: MIT
// commit: qemu-img's. What lies above a base moves into it.
#include "commit.hpp"

#include "cache_option.hpp"
#include "chain_change.hpp"
#include "change.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/dependents.hpp>
#include <coldchain/io/overlay_file.hpp>
#include <coldchain/ops/commit.hpp>
#include <coldchain/report/commit_report.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

void options(CLI::App& app, CommitRequest& commit) {
  add_common_options(app, commit.common);
  app.add_option("-b", commit.base, "The layer to commit into, and the image keeps its content")
      ->type_name("BASE");
  app.add_flag("-d,--keep", commit.keeps, "Do not empty the image");
  app.add_flag("--force", commit.force,
               "Also where another image or an internal snapshot reads through what changes");
  app.add_option("--scan", commit.scan, "Look for such images in DIR, too")->type_name("DIR");
  app.add_option("-r", commit.rate, "Copy at most so many bytes per second")->type_name("RATE");
  app.add_option("-t", commit.cache, "Accepted, and of no effect")->type_name("CACHE");
  app.add_flag("-q", commit.quiet, "Say nothing");
  app.add_flag("-p,--progress", commit.shows_progress, "Show how far it is");
  add_state_option(app, commit.folders);
  app.add_option("IMAGE", commit.image, "Path or block device")->required()->type_name("");
  app.footer("Example: coldchain commit top.qcow2");
}

void plan_options(CLI::App& app, CommitRequest& commit) {
  options(app, commit);
  commit.is_plan = true;
}

// Files as they were before a change that is pending in some of them.
class FormerFiles final : public io::FileSource {
 public:
  explicit FormerFiles(const io::FileSource& files) : files_(files) {}

  void add(std::unique_ptr<io::OverlayFile> former) { former_.push_back(std::move(former)); }

  [[nodiscard]] Result<std::unique_ptr<io::File>> open(const std::string& path) const override {
    std::unique_ptr<io::File> file = TRY(files_.open(path));
    for (const auto& former : former_) {
      if (former->status().identity == file->status().identity)
        return std::make_unique<io::OverlayFile>(static_cast<const io::File&>(*former));
    }
    return file;
  }
  [[nodiscard]] Result<io::Location> locate(const std::string& path) const override {
    return files_.locate(path);
  }
  [[nodiscard]] Result<io::WritableTarget> open_writable(const std::string& path) const override {
    return files_.open_writable(path);
  }

 private:
  const io::FileSource& files_;
  std::vector<std::unique_ptr<io::OverlayFile>> former_;
};

// Keeps a copy below a rate, in bytes per second.
Progress at_most(std::uint64_t rate, Progress progress) {
  using Clock = std::chrono::steady_clock;
  if (rate == 0)
    return progress;
  return [rate, progress = std::move(progress), begin = Clock::now()](std::uint64_t done,
                                                                      std::uint64_t total) {
    const std::chrono::duration<double> due(static_cast<double>(done) / static_cast<double>(rate));
    while (progress(done, total)) {
      const auto left = due - (Clock::now() - begin);
      if (left.count() <= 0)
        return true;
      std::this_thread::sleep_for(
          std::min<std::chrono::duration<double>>(left, std::chrono::milliseconds(100)));
    }
    return false;
  };
}

class CommitRun {
 public:
  CommitRun(const CommitRequest& request, World& world) : request_(request), world_(world) {}

  Result<ExitStatus> run() {
    return started([this] { return request_.is_plan ? plan() : commit(); });
  }

  Result<ExitStatus> give_up() {
    return started([this]() -> Result<std::optional<ExitStatus>> {
      TRY(lock());
      return std::optional(TRY(abandon()));
    });
  }

 private:
  // What was pending before may have to be ended first: then the chain is another one.
  template <class Work>
  Result<ExitStatus> started(const Work& work) {
    for (;;) {
      const Result<void> opened = open();
      const Result<std::optional<ExitStatus>> done = opened ? work() : fail(opened.error());
      if (!done && done.error().code == ErrorCode::locked && request_.is_plan) {
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
    tree_ = {};  // with its locks
    tree_ = TRY(open_tree(request_.common, request_.image, true, world_));
    nodes_ = graph::chain_of(*tree_.top);
    if (nodes_.size() == 1 && !request_.base)
      return fail(ErrorCode::invalid_argument, "Image does not have a backing file");
    base_ = TRY(find_base());
    if (!base().is_open())
      return fail(*base().gap);
    if (base().format_probed)
      return fail(
          ErrorCode::refused,
          fmt::format("the format of '{0}' is recorded nowhere: 'coldchain rebase -u -b {1} "
                      "-F FORMAT {2}' records it, and nothing is written into what was only "
                      "probed",
                      to_terminal(base().filename), to_shell_word(base().name),
                      to_shell_word(nodes_[base_ - 1]->filename)));
    if (!request_.base)
      TRY(check_probed(tree_, request_.common, request_.image));
    return check_recorded(tree_, request_.common, request_.image);
  }

  [[nodiscard]] const graph::Node& base() const { return *nodes_[base_]; }

  // As QEMU, by the name that the layer above has, and from the folder of the image; else from
  // here.
  [[nodiscard]] Result<std::size_t> find_base() const {
    if (!request_.base && !request_.argument)
      return std::size_t{1};
    const io::Location top = TRY(locate(*tree_.files, *tree_.top));
    std::optional<io::FileIdentity> from_image;
    std::optional<io::FileIdentity> from_here;
    if (request_.base && !request_.base->empty()) {
      const bool is_absolute = request_.base->starts_with('/');
      if (const auto file =
              tree_.files->open(is_absolute ? *request_.base : top.folder + "/" + *request_.base))
        from_image = (*file)->status().identity;
      if (const auto file = tree_.files->open(*request_.base))
        from_here = (*file)->status().identity;
    }
    const auto find = [&](const auto& is_it) -> std::size_t {
      for (std::size_t i = 1; i < nodes_.size(); ++i) {
        if (is_it(*nodes_[i]))
          return i;
      }
      return 0;
    };
    const auto is_file = [](const graph::Node& node, const std::optional<io::FileIdentity>& file) {
      return file && node.file && node.file->status().identity == *file;
    };
    std::size_t found = 0;
    if (request_.argument)
      found = find([&](const graph::Node& node) {
        return node.file && ops::commit_argument(node) == *request_.argument;
      });
    if (found == 0 && request_.base)
      found = find([&](const graph::Node& node) { return node.name == *request_.base; });
    if (found == 0)
      found = find([&](const graph::Node& node) { return is_file(node, from_image); });
    if (found == 0)
      found = find([&](const graph::Node& node) { return is_file(node, from_here); });
    if (found == 0)
      return fail(ErrorCode::not_found,
                  fmt::format("Did not find '{}' in the backing chain of '{}'",
                              to_terminal(request_.base.value_or("the base that is pending")),
                              to_terminal(request_.image)));
    return found;
  }

  // The tree may be another one by now: with images as they were before what is pending.
  Result<void> make_plan() {
    chain_ = TRY(graph::Chain::make(*nodes_.front()));
    base_chain_ = TRY(graph::Chain::make(base()));
    base_change_.emplace(*base().file);
    ops::CommitOptions options{
        .base = base_,
        .force = request_.force,
        .workers = world_.workers(),
        .progress = at_most(rate_, progress_of(request_.shows_progress, world_))};
    Result<ops::Commit> commit = ops::plan_commit(*base_change_, *chain_, *base_chain_, options);
    if (!commit)
      return fail(with_context(commit.error(), to_terminal(base().filename)));
    commit_ = std::move(*commit);
    return plan_top();
  }

  Result<void> plan_top() {
    top_change_.emplace(*nodes_.front()->file);
    Result<ops::Emptying> emptying =
        ops::plan_emptying(*top_change_, *chain_, base_, empties(), world_.workers());
    if (!emptying)
      return fail(with_context(emptying.error(), to_terminal(request_.image)));
    emptying_ = std::move(*emptying);
    return {};
  }

  [[nodiscard]] bool empties() const { return !request_.keeps && !request_.base && base_ == 1; }

  // Images that would read something else.
  Result<void> look_for_dependents() {
    graph::DependentsRequest wanted;
    wanted.directories = request_.scan;
    wanted.directories.push_back(TRY(locate(*tree_.files, *nodes_.front())).folder);
    wanted.directories.push_back(TRY(locate(*tree_.files, base())).folder);
    wanted.image = base().file->status().identity;
    wanted.top = nodes_.front()->file->status().identity;
    for (std::size_t i = 1; i < base_; ++i)
      wanted.known.push_back(nodes_[i]->file->status().identity);
    graph::Dependents found = TRY(graph::find_dependents(
        *tree_.files, policy_for_links(request_.common), wanted, world_.workers()));
    dependents_ = std::move(found.paths);
    for (const Error& error : found.unreadable)
      world_.complain(with_context(error, "not looked at, whether it reads through the base"));
    return {};
  }

  [[nodiscard]] Error refused_for_dependents() const {
    return {ErrorCode::refused,
            fmt::format("'{}' is read by others, which would read something else: {}; --force "
                        "commits all the same",
                        to_terminal(base().filename),
                        to_terminal(fmt::format("{}", fmt::join(dependents_, ", ")))),
            0};
  }

  Result<std::optional<ExitStatus>> plan() {
    TRY(make_plan());
    TRY(look_for_dependents());
    TRY(tell());
    if (dependents_.empty() || request_.force)
      return std::optional(success);
    return fail(refused_for_dependents());
  }

  Result<void> lock() {
    top_ = TRY(open_for_change(*tree_.files, tree_.top->filename, request_.folders));
    base_target_ = TRY(open_for_change(*tree_.files, base().filename, request_.folders));
    NodeChain others = nodes_;
    std::erase_if(
        others, [&](const graph::Node* node) { return node == nodes_.front() || node == &base(); });
    TRY(lock_for_reading(others));
    return check_unchanged(*tree_.files, nodes_);
  }

  // Nothing where all must be opened again.
  Result<std::optional<ExitStatus>> commit() {
    TRY(lock());
    if (TRY(end_other_change(*top_, nodes_.front()->filename)) ||
        TRY(end_other_change(*base_target_, base().filename)))
      return std::nullopt;
    const std::optional<edit::JournalHead> top = TRY(pending_in(*top_));
    const std::optional<edit::JournalHead> base_pending = TRY(pending_in(*base_target_));
    TRY(check_is_this(top, base_pending));
    if (goes_back(top) || goes_back(base_pending)) {
      const ExitStatus status = TRY(abandon());
      return request_.argument ? std::optional(status) : std::nullopt;
    }
    if (request_.argument && !top && !base_pending)
      return fail(ErrorCode::refused, "what was pending has been ended meanwhile");
    if (top && top->state == edit::JournalState::done)
      return std::optional(TRY(end_done()));
    const bool has_all = top && top->state == edit::JournalState::linking;
    if (top || base_pending)
      TRY(open_former(has_all));
    return std::optional(TRY(has_all ? finish_top() : carry_out(!top && !base_pending)));
  }

  static bool goes_back(const std::optional<edit::JournalHead>& head) {
    return head && (head->state == edit::JournalState::undoing ||
                    head->state == edit::JournalState::undone);
  }

  static Result<std::optional<edit::JournalHead>> pending_in(const ChangeTarget& target) {
    return edit::read_pending(*target.image.file, target.side_files);
  }

  // Ends what is pending there of another verb. Says whether the image has changed by that.
  Result<bool> end_other_change(ChangeTarget& target, const std::string& name) {
    const std::optional<edit::JournalHead> head = TRY(pending_in(target));
    if (head && (head->facts.change.operation == edit::Operation::commit_base ||
                 edit::is_commit_top(head->facts.change.operation)))
      return false;
    TRY(check_nothing_else_pending(world_.agreement, target, name, edit::Operation::none));
    const Result<edit::ResumeOutcome> ended =
        edit::resume(target.image, target.side_files, false, examine);
    if (!ended)
      return fail(with_context(ended.error(), to_terminal(name)));
    if (ended->resumed == edit::Resumed::needs_plan)
      return fail(ErrorCode::refused,
                  fmt::format("'{}' is pending in {}: 'coldchain resume {}' goes on or, with "
                              "--abandon, goes back",
                              to_terminal(ended->verb), to_terminal(name), to_shell_word(name)));
    return ended->resumed != edit::Resumed::nothing_pending &&
           ended->resumed != edit::Resumed::nothing_changed;
  }

  [[nodiscard]] Result<void> check_is_this(const std::optional<edit::JournalHead>& top,
                                           const std::optional<edit::JournalHead>& base) const {
    const edit::Operation wanted =
        empties() ? edit::Operation::commit_top : edit::Operation::commit_top_kept;
    const bool is_top = !top || (top->facts.change.operation == wanted &&
                                 top->facts.change.argument == ops::commit_argument(this->base()));
    const bool is_base =
        !base || (base->facts.change.operation == edit::Operation::commit_base &&
                  base->facts.change.argument == ops::commit_argument(*nodes_.front()));
    if (is_top && is_base)
      return {};
    const std::string& image = is_top ? this->base().filename : nodes_.front()->filename;
    return fail(
        ErrorCode::refused,
        fmt::format("another commit is pending in {}: 'coldchain resume {}' goes on or, with "
                    "--abandon, gives it up",
                    to_terminal(image), to_shell_word(image)));
  }

  // Opens the chain as it was before what is pending. The former tree keeps its locks.
  Result<void> open_former(bool base_is_done) {
    former_ = std::make_unique<FormerFiles>(*tree_.files);
    const auto add = [&](ChangeTarget& target, const graph::Node& node) -> Result<void> {
      Result<std::unique_ptr<io::OverlayFile>> view =
          edit::former_view(*target.image.file, target.side_files, examiner_of(node));
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
                                   .format = request_.common.format,
                                   .is_image_opts = request_.common.image_opts}));
    nodes_ = graph::chain_of(*former_top_);
    if (base_ >= nodes_.size() || !base().is_open())
      return fail(ErrorCode::refused, "the chain is shorter than it was, or broken");
    return {};
  }

  static edit::Examine examiner_of(const graph::Node& node) {
    if (node.qcow2_image() != nullptr)
      return examine;
    // A raw image has nothing that could be wrong.
    return [](const io::File& /*image*/) -> Result<edit::Examined> { return edit::Examined{}; };
  }

  Result<ExitStatus> carry_out(bool is_new) {
    TRY(make_plan());
    TRY(look_for_dependents());
    if (is_new && !request_.force && !dependents_.empty())
      return fail(refused_for_dependents());
    if (is_new) {
      TRY(check_agreed(world_.agreement, [this] { return report::commit_json(facts(true)); }));
      TRY(edit::check_room(commit_.data, *base_change_, *base_target_->image.file,
                           base_target_->side_files));
    }
    world_.catch_interrupts();
    edit::FreshData data;
    data.write = [this](edit::FreshWriter& /*writer*/) {
      return edit::commit_part(*base_change_, base_target_->image, base_target_->side_files,
                               commit_.change, commit_.data);
    };
    return finish(data);
  }

  // The base has all of it, and says so.
  Result<ExitStatus> finish_top() {
    chain_ = TRY(graph::Chain::make(*nodes_.front()));
    base_chain_ = TRY(graph::Chain::make(base()));
    TRY(plan_top());
    edit::FreshData data;
    data.write = [this](edit::FreshWriter& /*writer*/) {
      return ops::check_committed(*chain_, base_, *base_chain_, world_.workers());
    };
    return finish(data);
  }

  Result<ExitStatus> finish(const edit::FreshData& data) {
    const Result<void> done =
        edit::commit_part(*top_change_, top_->image, top_->side_files, emptying_.change, data);
    if (!done) {
      // Where the base was not begun, nothing is pending.
      if (!base_target_->side_files.has_pending().value_or(true))
        (void)edit::resume(top_->image, top_->side_files, true, examine);
      return fail(done.error());
    }
    if (request_.shows_progress)
      world_.err("    (100.00/100%)\n");
    return end_done();
  }

  // Both images are done: their side files go, that of the top last, since it leads to the base.
  Result<ExitStatus> end_done() {
    if (TRY(base_target_->side_files.has_pending()))
      TRY(base_target_->side_files.remove_pending());
    TRY(edit::resume(top_->image, top_->side_files, false, examine));
    // Nothing is lost where these fail, but room.
    if (empties())
      (void)ops::give_back(*top_->image.file, true);
    if (commit_.cost.zeroed_bytes != 0 && base().qcow2_image() != nullptr)
      (void)ops::give_back(*base_target_->image.file, false);
    TRY(tell());
    return success;
  }

  Result<ExitStatus> abandon() {
    const auto top = TRY(pending_in(*top_));
    const auto base_pending = TRY(pending_in(*base_target_));
    TRY(check_is_this(top, base_pending));
    const bool has_data = base_pending && base_pending->state != edit::JournalState::applying;
    const Result<void> planned = has_data ? plan_former() : Result<void>{};
    // The top says whether it can go back at all.
    const edit::ResumeOutcome ended =
        TRY(edit::resume(top_->image, top_->side_files, true, examine));
    const edit::ResumeOutcome base_ended =
        TRY(edit::resume(base_target_->image, base_target_->side_files, true, examiner_of(base())));
    if (base_ended.resumed == edit::Resumed::nothing_pending &&
        ended.resumed == edit::Resumed::nothing_pending) {
      TRY(world_.out(fmt::format("Nothing is pending for {}.\n", to_terminal(request_.image))));
      return success;
    }
    const std::string image = to_terminal(request_.image);
    TRY(world_.out(
        ended.resumed == edit::Resumed::left
            ? fmt::format("The commit is given up; {0} shows what it did before, and may have "
                          "clusters that leak: 'coldchain check {0}' tells.\n",
                          image)
            : fmt::format("The commit is given up; {} is as it was before.\n", image)));
    if (has_data)
      TRY(world_.out(planned ? words_for_changed() : words_for_all()));
    return success;
  }

  Result<void> plan_former() {
    TRY(open_former(false));
    return make_plan();
  }

  [[nodiscard]] std::string words_for_all() const {
    return fmt::format("Whatever {} has itself may have changed in {}.\n",
                       to_terminal(request_.image), to_terminal(base().filename));
  }

  [[nodiscard]] std::string words_for_changed() const {
    constexpr std::size_t most = 16;
    std::uint64_t bytes = 0;
    for (const GuestRange& range : commit_.changed)
      bytes += range.size();
    std::string out = fmt::format(
        "In {} up to {} bytes in {} guest ranges may have changed, which {} has itself:\n",
        to_terminal(base().filename), bytes, commit_.changed.size(), to_terminal(request_.image));
    for (std::size_t i = 0; i < std::min(most, commit_.changed.size()); ++i)
      out += fmt::format("  {:#x}-{:#x}\n", commit_.changed[i].begin.value,
                         commit_.changed[i].end.value);
    if (commit_.changed.size() > most)
      out += fmt::format("  and {} more\n", commit_.changed.size() - most);
    for (const std::string& bitmap : commit_.bitmaps_marked)
      out += fmt::format("Its bitmap {} may not record that.\n", to_terminal(bitmap));
    return out;
  }

  [[nodiscard]] report::CommitFacts facts(bool is_plan) const {
    return {.commit = &commit_,
            .emptying = empties() ? &emptying_ : nullptr,
            .image = request_.image,
            .base = base().filename,
            .dependents = dependents_,
            .is_plan = is_plan,
            .planned = is_plan ? planned(world_, nodes_) : report::Planned()};
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

 public:
  Result<void> read_rate() {
    if (request_.rate == "0")
      return {};
    Result<std::uint64_t> rate = parse_size("rate", request_.rate);
    if (!rate)
      return fail(ErrorCode::invalid_argument,
                  "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n"
                  "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    rate_ = *rate;
    return {};
  }

 private:
  const CommitRequest& request_;
  World& world_;
  std::uint64_t rate_ = 0;
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
};

}  // namespace

Result<ExitStatus> run_commit(const CommitRequest& request, World& world) {
  TRY(check_cache(request.cache));
  CommitRun run(request, world);
  TRY(run.read_rate());
  return run.run();
}

Result<ExitStatus> give_up_commit(const CommitRequest& request, World& world) {
  return CommitRun(request, world).give_up();
}

Result<std::string> find_committed_top(const io::OpenPolicy& policy, const std::string& base,
                                       const edit::JournalHead& pending, const World& world) {
  const auto files = TRY(world.files(policy));
  const std::unique_ptr<io::File> file = TRY(files->open(base));
  graph::DependentsRequest wanted;
  wanted.directories = {TRY(files->locate(base)).folder};
  wanted.image = file->status().identity;
  const graph::Dependents found =
      TRY(graph::find_dependents(*files, policy, wanted, world.workers()));
  for (const std::string& path : found.paths) {
    const Result<std::unique_ptr<io::File>> image = files->open(path);
    if (image && (*image)->status().lasting_identity.inode == pending.facts.change.argument)
      return path;
  }
  return fail(
      ErrorCode::refused,
      fmt::format("the commit of an image into {0} is pending, which is not in its folder: "
                  "'coldchain resume' of that image goes on or, with --abandon, gives it up; if "
                  "that is gone for good, rename {0}.coldchain-pending to "
                  "{0}.coldchain-given-up: the base is sound, and has a part of what was committed",
                  to_terminal(base)));
}

void register_commit(CLI::App& app, World& world, int& status) {
  add_verb<CommitRequest>(app, "commit", "Move what an image has into its backing file", world,
                          status, options, run_commit);
}

void add_commit_plan(CLI::App& plan, World& world, int& status) {
  add_verb<CommitRequest>(plan, "commit", "What a commit would do", world, status, plan_options,
                          run_commit);
}

}  // namespace coldchain::cli
