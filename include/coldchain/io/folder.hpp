// SPDX-License-Identifier: MIT
// A folder in which small files are made, renamed and removed so that they survive a power loss:
// all changes in the folder are on the storage after sync(). Names have no slash.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <coldchain/io/access_time.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::io {

struct FolderEntry {
  enum class Kind { regular, folder, symbolic_link, block_device, other };
  std::string name;
  Kind kind = Kind::other;
};

class Folder {
 public:
  // The guard is for the list of its entries and for read().
  [[nodiscard]] static Result<Folder> open(const std::string& path,
                                           AccessTimeGuard access_time_guard = {});
  // If it is missing, creates it in its parent folder, with mode 0755. It is on the storage then.
  [[nodiscard]] static Result<Folder> open_or_create(const std::string& path);
  Folder(Folder&& other) noexcept;
  Folder& operator=(Folder&& other) noexcept;
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string path_of(const std::string& name) const;

  // Whether what lies here is lost with the next boot.
  [[nodiscard]] Result<bool> is_volatile() const;

  [[nodiscard]] Result<bool> has(const std::string& name) const;
  [[nodiscard]] Result<std::vector<std::string>> names() const;
  // All entries but "." and "..", in the order of the system. After an error, `take` has had those
  // that could be read.
  [[nodiscard]] Result<void> for_each_entry(
      const std::function<void(FolderEntry entry)>& take) const;
  // Whether two names are of one file; not, where one of them is missing.
  [[nodiscard]] bool is_also(const std::string& name, const Folder& other,
                             const std::string& other_name) const;
  [[nodiscard]] bool has_file(const std::string& name, const FileIdentity& identity) const;
  [[nodiscard]] Result<bool> is_on_file_system_of(const Folder& other) const;
  [[nodiscard]] Result<FileIdentity> identity() const;
  // A number of the file system of a file here. It stays the same at a boot if the system has an
  // identifier for the storage (UUID, WWID, serial number).
  [[nodiscard]] Result<std::uint64_t> file_system_of(const std::string& name) const;

  // A new file that only its owner may read. Fails with `refused` if there is one of that name.
  [[nodiscard]] Result<std::unique_ptr<WritableFile>> create(const std::string& name) const;

  // A regular file, which any user may have put here. Error: `refused` for a symbolic link and for
  // anything else that is not a regular file. Its status has its owner.
  [[nodiscard]] Result<std::unique_ptr<File>> read(const std::string& name) const;
  [[nodiscard]] Result<std::unique_ptr<WritableFile>> open_file(const std::string& name) const;
  // The owner of the file with that name, without opening it.
  [[nodiscard]] Result<std::uint32_t> owner_of(const std::string& name) const;

  // What its file system has left for this process, in bytes.
  [[nodiscard]] Result<std::uint64_t> available_bytes() const;

  // Never replaces a file: `refused` if there is one named `to`. Both lie on one file system.
  [[nodiscard]] Result<void> move(const std::string& from, const Folder& to_folder,
                                  const std::string& to) const;
  [[nodiscard]] Result<void> remove(const std::string& name) const;
  [[nodiscard]] Result<void> sync() const;

 private:
  Folder(std::string path, int fd, AccessTimeGuard access_time_guard)
      : path_(std::move(path)), fd_(fd), access_time_guard_(std::move(access_time_guard)) {}

  std::string path_;
  int fd_ = -1;
  AccessTimeGuard access_time_guard_;
};

}  // namespace coldchain::io
