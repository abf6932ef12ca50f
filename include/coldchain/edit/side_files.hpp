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
  // They lie where the file that is open lies now.
  [[nodiscard]] static Result<SideFiles> of(const io::File& image, const SideFolders& folders);

  [[nodiscard]] const std::string& image_path() const { return image_path_; }
  [[nodiscard]] std::uint32_t image_owner() const { return owner_; }
  [[nodiscard]] std::string pending_path() const { return folder_.path_of(pending_name()); }
  [[nodiscard]] Result<bool> has_pending() const { return folder_.has(pending_name()); }
  // Anybody may have put it there (trust.hpp).
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> open_pending() const {
    return folder_.open_file(pending_name());
  }
  [[nodiscard]] Result<std::unique_ptr<io::File>> read_pending() const {
    return folder_.read(pending_name());
  }
  [[nodiscard]] Result<std::uint32_t> owner_of_pending() const {
    return folder_.owner_of(pending_name());
  }
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

  // A name to which a person can move a pending file that leads nowhere: no file has it yet.
  [[nodiscard]] std::string set_aside_path() const;

 private:
  SideFiles(io::Folder folder, std::string name, std::string image_path, std::uint32_t owner)
      : folder_(std::move(folder)),
        name_(std::move(name)),
        image_path_(std::move(image_path)),
        owner_(owner) {}

  static Result<SideFiles> of_file(const io::File& image);
  static Result<SideFiles> of_device(const io::File& device, const std::string& state_folder);

  [[nodiscard]] std::string pending_name() const { return name_ + pending_suffix; }
  [[nodiscard]] std::string kept_name(unsigned number) const;

  io::Folder folder_;
  std::optional<io::Folder> undo_folder_;
  std::string name_;
  std::string image_path_;
  std::uint32_t owner_;  // of the image
};

}  // namespace coldchain::edit
