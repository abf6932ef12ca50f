// SPDX-License-Identifier: MIT
// undo: puts back the bytes that a finished change kept.
#include "change.hpp"
#include "host_path.hpp"
#include "verb.hpp"

#include <filesystem>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/trust.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct UndoOptions {
  TargetOptions target;
  std::string undo_file;
};

void options(CommandLine app, UndoOptions& undo) {
  app.add_option("FILE", undo.undo_file, "The undo file").required().type_name("");
  add_target_options(app, undo.target);
  app.footer("Example: coldchain undo disk.qcow2.coldchain-undo disk.qcow2");
}

// It only holds records, and is believed as a journal that does.
Result<std::unique_ptr<io::WritableFile>> open_undo_file(const std::string& path,
                                                         std::uint32_t image_owner) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const io::Folder opened = TRY(io::Folder::open(folder));
  Result<std::unique_ptr<io::WritableFile>> found = opened.open_file(name);
  if (!found)
    return fail(with_context(found.error(), to_terminal(path)));
  std::unique_ptr<io::WritableFile> file = std::move(*found);
  const edit::Authorship authorship = edit::authorship_of(file->status(), image_owner);
  const edit::Belief belief = edit::belief_in(authorship, false);
  if (belief != edit::Belief::believed)
    return fail(ErrorCode::permission_denied,
                fmt::format("{} is not believed: {}. Nothing was written", to_terminal(path),
                            edit::reason_for(belief, authorship, false)));
  return file;
}

Result<ExitStatus> undo(const UndoOptions& options, ChangeTarget& target, World& world) {
  TRY(target.side_files.finish_keeping());  // the file may have two names
  const std::unique_ptr<io::WritableFile> file =
      TRY(open_undo_file(options.undo_file, target.image->status().owner));
  // It is told to people, wherever they are by then.
  std::error_code ignored;
  const std::string path = std::filesystem::absolute(options.undo_file, ignored);
  if (const Result<void> done = edit::undo(*file, path, *target.image, target.side_files, examine);
      !done)
    return fail(with_context(done.error(), to_terminal(options.undo_file)));
  TRY(world.out(fmt::format("{} is as it was before.\n", to_terminal(options.target.image))));
  return success;
}

Result<ExitStatus> run_verb(const UndoOptions& wanted, World& world) {
  UndoOptions options = wanted;
  note_confines(options.target.folders, options.target.policy);
  return with_target(options.target, world,
                     [&](ChangeTarget& target) { return undo(options, target, world); });
}

}  // namespace

void register_undo(CommandLine app, World& world, int& status) {
  add_verb<UndoOptions>(app, "undo", "Undo a repair", world, status, options, run_verb);
}

}  // namespace coldchain::cli
