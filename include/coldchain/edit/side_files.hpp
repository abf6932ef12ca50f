// SPDX-License-Identifier: MIT
// The location of an image's side files: beside the regular file at the end of all symbolic links;
// for a block device, in a separate folder. The journal of a pending change has a fixed name there,
// so that every program finds it, and two changes cannot be pending at once.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/io/folder.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::edit {

// The suffix of the name of a pending side file.
constexpr const char* pending_suffix = ".coldchain-pending";

struct SideFolders {
  std::string state = "/var/lib/coldchain";  // for block devices; it must outlast a boot
  // Where kept files go, on the file system of the pending one; empty: beside it.
  std::string undo{};
  // Words for a shell that lead a command to the same files again (--sysroot DIR). They are told
  // with each command that somebody is advised to run.
  std::string options{};
  // For a verb that only looks at what is pending.
  io::AccessTimeGuard access_time_guard{};
};

class SideFiles {
 public:
  // They lie where the file that is open lies now.
  [[nodiscard]] static Result<SideFiles> of(const io::File& image, const SideFolders& folders);

  [[nodiscard]] const std::string& image_path() const { return image_path_; }
  // For a shell: the image as the operand of a command that is to find these side files.
  [[nodiscard]] std::string operand() const;
  [[nodiscard]] std::uint32_t image_owner() const { return owner_; }
  [[nodiscard]] std::string pending_path() const { return folder_.path_of(pending_name()); }
  [[nodiscard]] Result<bool> has_pending() const { return folder_.has(pending_name()); }
  // Any user may have put it there (trust.hpp).
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

  // Renames the pending file to an undo file, and returns the path. With `stays`, it stays beside
  // the pending file, even if there is a folder for undo files.
  [[nodiscard]] Result<std::string> keep_pending(bool stays) const;
  // Finishes a rename that was interrupted between the new name and the old one.
  [[nodiscard]] Result<void> finish_keeping() const;

  // A side file in the same folder, of any image and any owner.
  struct Found {
    std::string name;
    bool is_by_name = false;  // it has the name of one of this image
  };
  [[nodiscard]] Result<std::vector<Found>> find_all() const;
  [[nodiscard]] Result<std::unique_ptr<io::File>> read(const std::string& name) const {
    return folder_.read(name);
  }

  // An unused name to which a person can move a pending file that cannot be used.
  [[nodiscard]] std::string set_aside_path() const;
  // For a shell: moves it there.
  [[nodiscard]] std::string set_aside_command() const;

 private:
  SideFiles(io::Folder folder, std::string name, std::string image_path, std::uint32_t owner)
      : folder_(std::move(folder)),
        name_(std::move(name)),
        image_path_(std::move(image_path)),
        owner_(owner) {}

  static Result<SideFiles> of_file(const io::File& image, const SideFolders& folders);
  static Result<SideFiles> of_device(const io::File& device, const SideFolders& folders);

  [[nodiscard]] std::string pending_name() const { return name_ + pending_suffix; }
  [[nodiscard]] std::string kept_name(unsigned number) const;

  io::Folder folder_;
  std::optional<io::Folder> undo_folder_;
  std::string name_;
  std::string image_path_;
  std::uint32_t owner_;  // of the image
  std::string options_;  // before the operand
};

}  // namespace coldchain::edit
