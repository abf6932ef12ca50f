// SPDX-License-Identifier: MIT
// Where the side files of an image lie and who may have made them: beside the regular file that all
// symbolic links lead to; for a block device in a folder of its own. A pending change has one fixed
// name there, so that whoever comes to the image finds it, and two cannot be pending at once.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/io/folder.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::edit {

// What the name of a pending side file has behind that of the image.
constexpr const char* pending_suffix = ".coldchain-pending";

struct SideFolders {
  std::string state = "/var/lib/coldchain";  // for block devices; it must outlast a boot
  // Where kept files go, on the file system of the pending one; empty: beside it.
  std::string undo{};
};

class SideFiles {
 public:
  // `status` and `location` are of the image.
  [[nodiscard]] static Result<SideFiles> of(const io::FileStatus& status,
                                            const io::Location& location,
                                            const SideFolders& folders);

  [[nodiscard]] std::string pending_path() const { return folder_.path_of(pending_name()); }
  [[nodiscard]] Result<bool> has_pending() const { return folder_.has(pending_name()); }
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> open_pending() const;
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> create_pending() const;
  [[nodiscard]] Result<void> remove_pending() const;

  // On the file system of the side files.
  [[nodiscard]] Result<std::uint64_t> available_bytes() const { return folder_.available_bytes(); }

  // Gives the pending file a name under which it is kept for an undo, and returns its path.
  // `stays` leaves it beside the pending one, whatever the folder for kept files is.
  [[nodiscard]] Result<std::string> keep_pending(bool stays) const;
  // Where that was stopped between the new name and the old: ends it.
  [[nodiscard]] Result<void> finish_keeping() const;

  // A side file in the same folder, of whatever image and whoever made it.
  struct Found {
    std::string name;
    bool is_by_name = false;  // it has the name of one of this image
  };
  [[nodiscard]] Result<std::vector<Found>> find_all() const;
  [[nodiscard]] Result<std::unique_ptr<io::File>> read(const std::string& name) const {
    return folder_.read(name);
  }

  // Where a person may move a pending file that leads nowhere, and it is not forgotten: nothing is
  // there yet.
  [[nodiscard]] std::string given_up_path() const;

 private:
  SideFiles(io::Folder folder, std::string name, std::uint32_t owner)
      : folder_(std::move(folder)), name_(std::move(name)), owner_(owner) {}

  static Result<SideFiles> of_file(const io::FileStatus& status, const io::Location& location);
  static Result<SideFiles> of_device(const io::FileStatus& status, const std::string& state_folder);

  [[nodiscard]] std::string pending_name() const { return name_ + pending_suffix; }
  [[nodiscard]] std::string kept_name(unsigned number) const;

  io::Folder folder_;
  std::optional<io::Folder> undo_folder_;
  std::string name_;
  std::uint32_t owner_;  // of the image
};

}  // namespace coldchain::edit
