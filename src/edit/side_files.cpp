// SPDX-License-Identifier: MIT
#include <coldchain/base/try.hpp>
#include <coldchain/edit/side_files.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

Result<SideFiles> SideFiles::of(const io::WritableTarget& image, const std::string& state_folder) {
  const io::FileStatus& status = image.file->status();
  if (status.kind != io::FileKind::block_device) {
    io::Folder folder = TRY(io::Folder::open(image.folder));
    if (!folder.has_file(image.name, status.identity))
      return fail(ErrorCode::refused, "the image was moved while it was opened");
    return SideFiles(std::move(folder), image.name, status.owner);
  }
  Result<io::Folder> folder = io::Folder::open(state_folder);
  if (!folder)
    return fail(with_context(folder.error(),
                             "block devices need a folder for side files: make it, or give "
                             "another with --state-dir"));
  if (TRY(folder->is_volatile()))
    return fail(ErrorCode::refused,
                fmt::format("{} is kept in memory: a side file there would not outlast a boot; "
                            "give another --state-dir",
                            state_folder));
  return SideFiles(std::move(*folder), fmt::format("device-{:x}", status.identity.inode),
                   status.owner);
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::open_pending() const {
  return folder_.open_trusted(pending_name(), owner_);
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::open_kept(unsigned number) const {
  return folder_.open_trusted(kept_name(number), owner_);
}

std::string SideFiles::kept_name(unsigned number) const {
  return name_ + ".coldchain-undo" + (number == 1 ? "" : fmt::format("-{}", number));
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

Result<void> SideFiles::check_undo_folder(const std::string& undo_folder) const {
  if (undo_folder.empty())
    return {};
  const io::Folder folder = TRY(io::Folder::open(undo_folder));
  if (!TRY(folder.is_on_file_system_of(folder_)))
    return fail(ErrorCode::refused,
                fmt::format("{} is on another file system than the image", undo_folder));
  return {};
}

Result<std::string> SideFiles::keep_pending(const std::string& undo_folder) const {
  const io::Folder folder =
      TRY(io::Folder::open(undo_folder.empty() ? folder_.path() : undo_folder));
  for (unsigned number = 1;; ++number) {
    const std::string name = kept_name(number);
    if (TRY(folder.has(name)))
      continue;
    TRY(folder_.move(pending_name(), folder, name));
    TRY(folder.sync());
    TRY(folder_.sync());
    return folder.path_of(name);
  }
}

}  // namespace coldchain::edit
