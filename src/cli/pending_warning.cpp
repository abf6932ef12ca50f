// SPDX-License-Identifier: MIT
#include "pending_warning.hpp"

#include "host_path.hpp"

#include <utility>
#include <vector>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/pending.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

std::optional<Error> warning_for(const edit::PendingFile& found,
                                 const edit::SideFiles& side_files) {
  if (found.kind == edit::PendingKind::none || found.error)
    return found.error;
  const std::string image = to_terminal(side_files.image_path());
  if (found.head && found.head->facts.change.undoes != 0)
    return Error{
        ErrorCode::refused,
        fmt::format("an undo of {} was interrupted: run the same 'coldchain undo' again", image),
        0};
  return Error{ErrorCode::refused,
               fmt::format("a change of {0} was interrupted; continue with 'coldchain resume {1}', "
                           "or roll back with 'coldchain resume --abandon {1}'",
                           image, side_files.operand()),
               0};
}

}  // namespace

std::optional<Error> pending_warning(const CommonOptions& options, const graph::Node& image,
                                     edit::SideFolders folders) {
  if (image.file == nullptr)
    return std::nullopt;
  folders.undo.clear();
  note_confines(folders, options.policy);
  const auto look = [&]() -> Result<std::optional<Error>> {
    const edit::SideFiles side_files = TRY(edit::SideFiles::of(*image.file, folders));
    return warning_for(TRY(edit::look_at_pending(*image.file, side_files)), side_files);
  };
  // What cannot be looked at stops nobody who only looks.
  return look().value_or(std::nullopt);
}

Result<void> warn_of_pending(const CommonOptions& options, const graph::Node& top, World& world,
                             const edit::SideFolders& folders) {
  std::vector<Error> warnings;
  for (const graph::Node* node : graph::chain_of(top)) {
    if (std::optional<Error> warning = pending_warning(options, *node, folders))
      warnings.push_back(std::move(*warning));
  }
  TRY(check_evidence(options));
  for (const Error& warning : warnings)
    world.complain(warning);
  return {};
}

}  // namespace coldchain::cli
