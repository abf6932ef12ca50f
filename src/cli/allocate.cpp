// SPDX-License-Identifier: MIT
// allocate: places of its own for the guest's disk. A qcow2 image gets them as by a pull; a raw one
// has them, and gets storage.
#include "chain_change.hpp"
#include "change.hpp"
#include "pull.hpp"
#include "sizes.hpp"
#include "verb.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/pull_report.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct AllocateOptions {
  PullRequest pull;
  std::optional<std::string> range;
  bool thin = false;
  bool reserve = false;
  bool zero_fill = false;
};

void options(CLI::App& app, AllocateOptions& allocate) {
  PullRequest& pull = allocate.pull;
  add_common_options(app, pull.common);
  app.add_option("--range", allocate.range, "Only so much of the disk, and keep the backing file")
      ->type_name("OFFSET:LENGTH");
  app.add_flag("--thin", allocate.thin, "Only what the layers below provide, as pull");
  app.add_flag("--reserve", allocate.reserve,
               "Places for all, zeros unwritten; so it is without any of the three");
  app.add_flag("--zero-fill", allocate.zero_fill, "Places for all, zeros written");
  app.add_flag("--force", pull.force,
               "Also where an internal snapshot reads through what would go");
  app.add_flag("-q", pull.quiet, "Say nothing");
  app.add_flag("-p,--progress", pull.shows_progress, "Show how far it is");
  add_state_option(app, pull.folders);
  app.add_option("IMAGE", pull.image, "Path or block device")->required()->type_name("");
  app.footer("Example: coldchain allocate --range 0:10G disk.qcow2");
}

void plan_options(CLI::App& app, AllocateOptions& allocate) {
  options(app, allocate);
  allocate.pull.is_plan = true;
}

Result<ops::Allocation> parse(const AllocateOptions& allocate) {
  if (int{allocate.thin} + int{allocate.reserve} + int{allocate.zero_fill} > 1)
    return fail(ErrorCode::invalid_argument,
                "--thin, --reserve and --zero-fill exclude each other");
  ops::Allocation allocation;
  if (allocate.thin)
    allocation.places = ops::Places::thin;
  if (allocate.zero_fill)
    allocation.places = ops::Places::zero_fill;
  if (allocate.range)
    allocation.range = TRY(parse_range(*allocate.range));
  return allocation;
}

class RawAllocation {
 public:
  RawAllocation(const PullRequest& request, const OpenedTree& tree, World& world)
      : request_(request), tree_(tree), world_(world) {}

  Result<ExitStatus> run() {
    if (request_.is_plan) {
      TRY(plan(*tree_.top->file));
      return tell();
    }
    ChangeTarget target = TRY(open_for_change(*tree_.files, tree_.top->filename, request_.folders));
    TRY(check_unchanged(*tree_.files, {tree_.top.get()}));
    io::WritableFile& image = *target.image.file;
    TRY(plan(image));
    if (TRY(target.side_files.has_pending()))
      return fail(ErrorCode::refused,
                  fmt::format("a change is pending ({}): 'coldchain resume {}' first",
                              to_terminal(target.side_files.pending_path()),
                              to_shell_word(request_.image)));
    TRY(check_agreed(world_.agreement, [this] { return report::pull_json(facts(true)); }));
    world_.catch_interrupts();
    TRY(give_storage(target, pull_.data.places, request_.allocation->places, world_));
    if (request_.shows_progress)
      world_.err("    (100.00/100%)\n");
    return tell();
  }

 private:
  Result<void> plan(const io::File& image) {
    const raw::Image& raw = *tree_.top->raw_image();
    if (raw.host_offset({0}).value != 0 || raw.exact_size() != image.size())
      return fail(ErrorCode::refused,
                  "is a window of a file, which is not written to: name the file itself");
    if (image.status().kind == io::FileKind::block_device)
      return fail(ErrorCode::refused,
                  "what storage there is behind a block device is not seen from here");
    const GuestRange range = TRY(ops::whole_clusters(*request_.allocation, 1, image.size()));
    if (request_.allocation->places != ops::Places::thin)
      pull_.data.places = {{{range.begin.value}, {range.end.value}}};
    pull_.storage_bytes = TRY(io::bytes_without_storage(image, pull_.data.places));
    ops::Cost& cost = pull_.cost;
    cost.image_end_before = cost.file_size_before = image.size();
    cost.image_end_after = cost.file_size_after = image.size();
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
  ops::Pull pull_;
};

Result<ExitStatus> run_verb(const AllocateOptions& allocate, World& world) {
  PullRequest request = allocate.pull;
  request.allocation = TRY(parse(allocate));
  {
    const Result<OpenedTree> tree = open_tree(request.common, request.image, true, world);
    if (!tree && tree.error().code == ErrorCode::locked) {
      world.complain(tree.error());
      return in_use;
    }
    if (!tree)
      return fail(tree.error());
    if (tree->top->raw_image() != nullptr) {
      Result<ExitStatus> done = RawAllocation(request, *tree, world).run();
      if (!done && done.error().code == ErrorCode::locked) {
        world.complain(done.error());
        return in_use;
      }
      return done ? done : fail(with_context(done.error(), to_terminal(request.image)));
    }
  }
  return run_pull(request, world);
}

}  // namespace

Result<void> check_storage(const ChangeTarget& target, std::uint64_t bytes) {
  if (bytes == 0 || target.image.file->status().kind != io::FileKind::regular)
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
                          ops::Places how, World& world) {
  const std::uint64_t missing = TRY(io::bytes_without_storage(*target.image.file, places));
  TRY(check_storage(target, missing));
  Result<void> given =
      ops::give_storage(*target.image.file, places, how, progress_of(false, world));
  if (!given && given.error().code == ErrorCode::interrupted)
    return fail(ErrorCode::interrupted,
                "interrupted while it got storage: the same command goes on");
  return given;
}

Result<GuestRange> parse_range(const std::string& text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos)
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is no range: OFFSET:LENGTH, in bytes or with k, M, G or T",
                            to_terminal(text)));
  const std::uint64_t offset = TRY(parse_size("range offset", text.substr(0, colon)));
  const std::uint64_t length = TRY(parse_size("range length", text.substr(colon + 1)));
  const auto end = checked_add(offset, length);
  if (!end)
    return fail(ErrorCode::invalid_argument,
                fmt::format("the range '{}' ends nowhere", to_terminal(text)));
  return GuestRange{{offset}, {*end}};
}

void register_allocate(CLI::App& app, World& world, int& status) {
  add_verb<AllocateOptions>(app, "allocate", "Give the guest's disk places of its own in an image",
                            world, status, options, run_verb);
}

void add_allocate_plan(CLI::App& plan, World& world, int& status) {
  add_verb<AllocateOptions>(plan, "allocate", "What an allocation would do", world, status,
                            plan_options, run_verb);
}

}  // namespace coldchain::cli
