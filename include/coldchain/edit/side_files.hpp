// SPDX-License-Identifier: MIT
// Where the side files of an image lie and who may have made them: beside the regular file that all
// symbolic links lead to; for a block device in a folder of its own. A pending change has one fixed
// name there, so that whoever comes to the image finds it, and two cannot be pending at once.
#pragma once

#include <memory>
#include <string>

#include <coldchain/io/folder.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::edit {

class SideFiles {
 public:
  // `state_folder` is for block devices; it must outlast a boot.
  [[nodiscard]] static Result<SideFiles> of(const io::WritableTarget& image,
                                            const std::string& state_folder);

  [[nodiscard]] std::string pending_path() const { return folder_.path_of(pending_name()); }
  [[nodiscard]] Result<bool> has_pending() const { return folder_.has(pending_name()); }
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> open_pending() const;
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> create_pending() const;
  [[nodiscard]] Result<void> remove_pending() const;

  // Whether keep_pending() can succeed there.
  [[nodiscard]] Result<void> check_undo_folder(const std::string& undo_folder) const;

  // Gives the pending file a name under which it is kept for an undo, and returns its path. In
  // `undo_folder`, which must be on the same file system, or beside the image where that is empty.
  [[nodiscard]] Result<std::string> keep_pending(const std::string& undo_folder) const;

  // The kept files beside the image, numbered from 1 on.
  [[nodiscard]] Result<bool> has_kept(unsigned number) const {
    return folder_.has(kept_name(number));
  }
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> open_kept(unsigned number) const;

 private:
  SideFiles(io::Folder folder, std::string name, std::uint32_t owner)
      : folder_(std::move(folder)), name_(std::move(name)), owner_(owner) {}

  [[nodiscard]] std::string pending_name() const { return name_ + ".coldchain-pending"; }
  [[nodiscard]] std::string kept_name(unsigned number) const;

  io::Folder folder_;
  std::string name_;
  std::uint32_t owner_;  // of the image
};

}  // namespace coldchain::edit
