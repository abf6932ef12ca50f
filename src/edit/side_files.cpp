// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

// In the name of every side file.
constexpr const char* side_file_mark = ".coldchain-";

}  // namespace

Result<SideFiles> SideFiles::of(const io::File& image, const SideFolders& folders) {
  SideFiles side_files =
      TRY(image.status().kind == io::FileKind::block_device ? of_device(image, folders)
                                                            : of_file(image, folders));
  side_files.options_ = folders.options;
  const bool is_elsewhere =
      image.status().kind == io::FileKind::block_device && folders.state != SideFolders{}.state;
  if (is_elsewhere)
    side_files.options_ += fmt::format("{}--state-dir {}", side_files.options_.empty() ? "" : " ",
                                       to_shell_word(side_files.folder_.path()));
  if (folders.undo.empty())
    return side_files;
  // Found out before anything is changed.
  side_files.undo_folder_ = TRY(io::Folder::open(folders.undo));
  if (!TRY(side_files.undo_folder_->is_on_file_system_of(side_files.folder_)))
    return fail(ErrorCode::refused, fmt::format("{} is on another file system than {}",
                                                folders.undo, side_files.folder_.path()));
  return side_files;
}

Result<SideFiles> SideFiles::of_file(const io::File& image, const SideFolders& folders) {
  const io::Location location = TRY(image.location());
  io::Folder folder = TRY(io::Folder::open(location.folder, folders.access_time_guard));
  if (!folder.has_file(location.name, image.status().identity))
    return fail(ErrorCode::refused,
                "the image was moved or replaced while it was opened: try again");
  std::string path = folder.path_of(location.name);
  return SideFiles(std::move(folder), location.name, std::move(path), image.status().owner);
}

Result<SideFiles> SideFiles::of_device(const io::File& device, const SideFolders& folders) {
  const io::FileStatus& status = device.status();
  const io::Location location = TRY(device.location());
  Result<io::Folder> folder = io::Folder::open(folders.state, folders.access_time_guard);
  if (!folder)
    return fail(with_context(folder.error(),
                             "block devices need a folder for side files: make it, or give "
                             "another with --state-dir"));
  if (TRY(folder->is_volatile()))
    return fail(ErrorCode::refused, fmt::format("{} is in memory: a side file there would be lost "
                                                "at the next boot; give another --state-dir",
                                                folders.state));
  return SideFiles(std::move(*folder), fmt::format("device-{:x}", status.lasting_identity.inode),
                   location.folder + "/" + location.name, status.owner);
}

std::string SideFiles::operand() const {
  return options_.empty() ? to_shell_word(image_path_)
                          : fmt::format("{} {}", options_, to_shell_word(image_path_));
}

std::string SideFiles::kept_name(unsigned number) const {
  return name_ + side_file_mark + "undo" + (number == 1 ? "" : fmt::format("-{}", number));
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::create_pending() const {
  std::unique_ptr<io::WritableFile> file = TRY(folder_.create(pending_name()));
  if (const Result<void> done = folder_.sync(); !done) {
    (void)folder_.remove(pending_name());
    return fail(done.error());
  }
  return file;
}

Result<void> SideFiles::remove_pending() const {
  TRY(folder_.remove(pending_name()));
  return folder_.sync();
}

Result<std::string> SideFiles::keep_pending(bool stays) const {
  const io::Folder& folder = stays || !undo_folder_ ? folder_ : *undo_folder_;
  for (unsigned number = 1;; ++number) {
    const std::string name = kept_name(number);
    if (TRY(folder.has(name)))
      continue;
    TRY(folder_.move(pending_name(), folder, name));
    // With either name the file leads to the same end: where this fails, nothing is lost.
    (void)folder.sync();
    (void)folder_.sync();
    return folder.path_of(name);
  }
}

// Only of what is done is the name changed.
Result<void> SideFiles::finish_keeping() const {
  const Result<std::unique_ptr<io::File>> pending = folder_.read(pending_name());
  const Result<JournalHead> head = pending ? Journal::read_head(**pending) : fail(pending.error());
  if (!head || head->state != JournalState::done)
    return {};
  for (const io::Folder* folder : {&folder_, undo_folder_ ? &*undo_folder_ : &folder_}) {
    const std::vector<std::string> names = TRY(folder->names());
    const bool has_other_name =
        std::any_of(names.begin(), names.end(), [&](const std::string& name) {
          return name.find(side_file_mark) != std::string::npos &&
                 (folder != &folder_ || name != pending_name()) &&
                 folder_.is_also(pending_name(), *folder, name);
        });
    if (has_other_name)
      return remove_pending();
  }
  return {};
}

std::string SideFiles::set_aside_path() const {
  for (unsigned number = 1;; ++number) {
    const std::string name =
        name_ + side_file_mark + "given-up" + (number == 1 ? "" : fmt::format("-{}", number));
    if (!folder_.has(name).value_or(false))
      return folder_.path_of(name);
  }
}

std::string SideFiles::set_aside_command() const {
  return fmt::format("mv {} {}", to_shell_word(pending_path()), to_shell_word(set_aside_path()));
}

Result<std::vector<SideFiles::Found>> SideFiles::find_all() const {
  std::vector<Found> found;
  for (const std::string& name : TRY(folder_.names())) {
    if (name.find(side_file_mark) != std::string::npos)
      found.push_back({name, name.starts_with(name_ + side_file_mark)});
  }
  return found;
}

}  // namespace coldchain::edit
