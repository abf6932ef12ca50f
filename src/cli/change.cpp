// SPDX-License-Identifier: MIT
#include "change.hpp"

#include "option_values.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/lock.hpp>
#include <coldchain/ops/repair.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

Result<void> check_names(const io::FileStatus& status) {
  if (status.is_read_only)
    return fail(ErrorCode::refused, "the device is read-only: 'blockdev --setrw' changes that");
  if (status.kind == io::FileKind::regular && status.links > 1)
    return fail(ErrorCode::refused, fmt::format("the file has {} names, and its journal would lie "
                                                "beside only one of them: remove the other names",
                                                status.links));
  return {};
}

Error cannot_change(const std::string& path, const Error& cause) {
  Error error =
      with_context(cause, fmt::format("Could not open '{}' for writing", to_terminal(path)));
  if (error.code == ErrorCode::locked)
    error.message += fmt::format("\nIs another process using the image [{}]?", to_terminal(path));
  return error;
}

Result<std::unique_ptr<io::WritableFile>> open_locked(const io::File& opened) {
  std::unique_ptr<io::WritableFile> image = TRY(opened.open_for_writing());
  TRY(check_names(image->status()));
  TRY(io::hold_write_locks(*image));
  TRY(image->refresh());
  if (!is_unchanged(*image, opened))
    return fail(ErrorCode::refused, "it was changed after it was read: try again");
  return image;
}

}  // namespace

Result<ChangeTarget> open_for_change(const io::File& opened, const std::string& path,
                                     const edit::SideFolders& folders) {
  Result<std::unique_ptr<io::WritableFile>> image = open_locked(opened);
  if (!image)
    return fail(cannot_change(path, image.error()));
  edit::SideFiles side_files = TRY(edit::SideFiles::of(**image, folders));
  return ChangeTarget{std::move(*image), std::move(side_files)};
}

bool is_unchanged(const io::File& now, const io::File& then) {
  return now.status().identity == then.status().identity && now.size() == then.size() &&
         now.status().modified == then.status().modified;
}

Result<void> check_may_change(const graph::Node& image, bool force_share) {
  Result<void> done = check_names(image.file->status());
  if (done && !force_share)
    done = io::test_locks(*image.file, io::LockNeed::write);
  return done ? done : fail(cannot_change(image.filename, done.error()));
}

void add_target_options(CommandLine app, TargetOptions& options) {
  app.add_option("--root", options.policy.root, "Open no image outside DIR")
      .check(not_empty())
      .type_name("DIR");
  app.add_option("--sysroot", options.policy.sysroot, "Read every name inside DIR, as if it were /")
      .check(not_empty())
      .type_name("DIR");
  add_state_option(app, options.folders);
  app.add_option("IMAGE", options.image, "Path or block device").required().type_name("");
}

Result<ExitStatus> with_target(
    const TargetOptions& options, World& world,
    const std::function<Result<ExitStatus>(ChangeTarget& target)>& work) {
  const auto files = TRY(world.files(options.policy));
  const Result<std::unique_ptr<io::File>> opened = files->open_operand(options.image);
  if (!opened)
    return fail(cannot_change(options.image, opened.error()));
  Result<ChangeTarget> target = open_for_change(**opened, options.image, options.folders);
  if (target)
    return work(*target);
  if (target.error().code != ErrorCode::locked)
    return fail(target.error());
  world.complain(target.error());
  return in_use;
}

Result<edit::Examined> examine(const io::File& image) {
  const ops::Condition condition = TRY(ops::condition_of(image));
  return edit::Examined{ops::corruption_count(condition), condition.counts.image_end_offset};
}

void add_state_option(CommandLine app, edit::SideFolders& folders) {
  app.add_option("--state-dir", folders.other,
                 fmt::format("Another folder than {} for the journals of block devices, and of "
                             "files whose own folder cannot take them",
                             edit::SideFolders{}.state))
      .check(not_empty())
      .type_name("DIR");
}

void add_undo_option(CommandLine app, edit::SideFolders& folders) {
  app.add_option("--undo", folders.undo,
                 "Keep the undo file in DIR, on the same file system, instead of beside the image")
      .check(not_empty())
      .type_name("DIR");
}

}  // namespace coldchain::cli
