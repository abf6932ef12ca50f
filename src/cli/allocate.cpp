// SPDX-License-Identifier: MIT
// allocate: places of its own for the guest's disk. A qcow2 image gets them as by a pull; a raw one
// has them, and gets storage.
#include "allocate.hpp"

#include "chain_change.hpp"
#include "consent.hpp"
#include "host_path.hpp"
#include "pull.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/storage.hpp>
#include <coldchain/report/pull_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct AllocateOptions {
  PullRequest pull;
  bool thin = false;
  bool zero_fill = false;
};

void options(CommandLine app, AllocateOptions& allocate) {
  add_pull_options(app, allocate.pull);
  add_range_option(app, allocate.pull.range);
  Option thin = app.add_flag("--thin", allocate.thin,
                             "Copy only what the layers below provide, as pull does");
  Option reserve = app.add_flag(
      "--reserve", [] {}, "Allocate clusters for zeros, but do not write them (the default)");
  Option zero_fill = app.add_flag("--zero-fill", allocate.zero_fill,
                                  "Allocate clusters for zeros and write the zeros");
  thin.excludes(reserve).excludes(zero_fill);
  reserve.excludes(zero_fill);
  app.footer("Example: coldchain allocate --range 0:10G disk.qcow2");
}

void plan_options(CommandLine app, AllocateOptions& allocate) {
  options(app, allocate);
  allocate.pull.is_plan = true;
  app.footer("Example: coldchain plan allocate --range 0:10G disk.qcow2");
}

Result<ops::Allocation> parse(const AllocateOptions& allocate) {
  ops::Allocation allocation;
  if (allocate.thin)
    allocation.places = ops::Places::thin;
  if (allocate.zero_fill)
    allocation.places = ops::Places::zero_fill;
  if (allocate.pull.range)
    allocation.range = TRY(parse_range(*allocate.pull.range));
  return allocation;
}

class RawAllocation {
 public:
  RawAllocation(const PullRequest& request, const OpenedTree& tree, std::uint64_t rate,
                World& world)
      : request_(request),
        tree_(tree),
        world_(world),
        meter_(world, request.copy.shows_progress, rate) {}

  Result<ExitStatus> run() {
    if (request_.is_plan) {
      TRY(check_may_change(*tree_.top, request_.common.force_share));
      TRY(make_plan());
      return tell();
    }
    ChangeTarget target =
        TRY(open_for_change(*tree_.top->file, tree_.top->filename, request_.folders));
    TRY(check_unchanged(*tree_.files, {tree_.top.get()}));
    TRY(check_may_write(world_, {tree_.top.get()}));
    TRY(make_plan());
    TRY(edit::check_nothing_pending(*target.image, target.side_files));
    TRY(check_agreed(world_.agreement, [this] { return report::pull_json(facts(true)); }));
    world_.catch_interrupts();
    TRY(give_storage(target, pull_.data.places, request_.allocation->places, meter_.progress()));
    meter_.finish();
    return tell();
  }

 private:
  Result<void> make_plan() {
    pull_ = TRY(ops::plan_allocation(*tree_.top->raw_image(), *request_.allocation));
    return {};
  }

  [[nodiscard]] report::PullFacts facts(bool is_plan) const {
    return {.pull = &pull_,
            .image = request_.image,
            .backing_file = std::nullopt,
            .allocation = request_.allocation,
            .is_plan = is_plan,
            .planned = is_plan ? planned(world_, {tree_.top.get()}) : report::Planned()};
  }

  Result<ExitStatus> tell() {
    const report::PullFacts facts = this->facts(request_.is_plan);
    if (!request_.quiet)
      TRY(world_.out(request_.common.json() ? report::pull_json(facts) : report::pull_text(facts)));
    return success;
  }

  const PullRequest& request_;
  const OpenedTree& tree_;
  World& world_;
  ProgressMeter meter_;
  ops::Pull pull_;
};

// Nothing where the image is no raw one.
Result<std::optional<ExitStatus>> run_raw(const PullRequest& request, World& world) {
  const std::uint64_t rate = TRY(parse_rate(request.copy.rate));
  const OpenedTree tree = TRY(open_tree(request.common, request.image, false, world));
  if (tree.top->raw_image() == nullptr)
    return std::nullopt;
  const Result<ExitStatus> done = RawAllocation(request, tree, rate, world).run();
  if (!done && done.error().code != ErrorCode::locked)
    return fail(with_context(done.error(), to_terminal(request.image)));
  return std::optional(TRY(done));
}

Result<ExitStatus> run_verb(const AllocateOptions& allocate, World& world) {
  PullRequest request = allocate.pull;
  request.allocation = TRY(parse(allocate));
  take_consent(world, request.common, request.folders, &request.force);
  take_copy_options(world, request.copy);
  note_confines(request.folders, request.common.policy);
  const Result<std::optional<ExitStatus>> done = run_raw(request, world);
  if (!done && done.error().code == ErrorCode::locked) {
    world.complain(done.error());
    return in_use;
  }
  if (!done)
    return fail(done.error());
  return *done ? **done : run_pull(request, world);
}

}  // namespace

Result<void> check_storage(const ChangeTarget& target, std::uint64_t bytes) {
  if (bytes == 0 || target.image->status().kind != io::FileKind::regular)
    return {};
  const std::uint64_t available = TRY(target.side_files.available_bytes());
  if (bytes > available)
    return fail(ErrorCode::refused,
                fmt::format("nothing was changed: {} bytes of storage are needed, and the file "
                            "system has room for {}",
                            bytes, available));
  return {};
}

Result<void> give_storage(ChangeTarget& target, const std::vector<HostRange>& places,
                          ops::Places how, const Progress& progress) {
  const std::uint64_t missing = TRY(io::bytes_without_storage(*target.image, places));
  TRY(check_storage(target, missing));
  Result<void> given =
      edit::give_storage(*target.image, places, how == ops::Places::zero_fill, progress);
  if (!given && given.error().code == ErrorCode::interrupted)
    return fail(ErrorCode::interrupted,
                "interrupted while storage was allocated: run the same command again to continue");
  return given;
}

void add_range_option(CommandLine app, std::optional<std::string>& range) {
  app.add_option("--range", range, "Change only this range of the disk, and keep the backing file")
      .type_name("OFFSET:LENGTH");
}

Result<GuestRange> parse_range(const std::string& text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos)
    return fail(
        ErrorCode::invalid_argument,
        fmt::format(
            "'{}' is not a range: give OFFSET:LENGTH, in bytes or with a suffix k, M, G or T",
            to_terminal(text)));
  const std::uint64_t offset = TRY(parse_size("range offset", text.substr(0, colon)));
  const std::uint64_t length = TRY(parse_size("range length", text.substr(colon + 1)));
  const auto end = checked_add(offset, length);
  if (!end)
    return fail(ErrorCode::invalid_argument,
                fmt::format("the end of the range '{}' is too large", to_terminal(text)));
  return GuestRange{{offset}, {*end}};
}

void register_allocate(CommandLine app, World& world, int& status) {
  add_verb<AllocateOptions>(app, "allocate", "Allocate the guest's disk in an image", world, status,
                            options, run_verb);
}

void add_allocate_plan(CommandLine plan, World& world, int& status) {
  add_looking_verb<AllocateOptions>(plan, "allocate", "Show what an allocation would do", world,
                                    status, plan_options, run_verb);
}

}  // namespace coldchain::cli
