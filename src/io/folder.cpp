// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/folder.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace coldchain::io {

namespace {

Error named_error(int error, const std::string& path) {
  Error result = system_error(error, path);
  if (error == EEXIST)
    result.code = ErrorCode::refused;
  return result;
}

// What it is, is found out before it is opened: to open a device may do something.
Result<Descriptor> find_regular(int folder, const std::string& name, const std::string& path) {
  Descriptor found(::openat(folder, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat facts = {};
  if (!found.is_open() || ::fstat(found.get(), &facts) != 0)
    return fail(named_error(errno, path));
  if (S_ISLNK(facts.st_mode))
    return fail(ErrorCode::refused, "is a symbolic link");
  if (!S_ISREG(facts.st_mode))
    return fail(ErrorCode::refused, "is not a regular file");
  return found;
}

FolderEntry::Kind kind_of(mode_t mode) {
  if (S_ISREG(mode))
    return FolderEntry::Kind::regular;
  if (S_ISDIR(mode))
    return FolderEntry::Kind::folder;
  if (S_ISBLK(mode))
    return FolderEntry::Kind::block_device;
  return S_ISLNK(mode) ? FolderEntry::Kind::symbolic_link : FolderEntry::Kind::other;
}

// Not every file system tells the kind with the name.
FolderEntry::Kind kind_of(int folder, const dirent& entry) {
  if (entry.d_type != DT_UNKNOWN)
    return kind_of(static_cast<mode_t>(DTTOIF(entry.d_type)));
  struct stat facts = {};
  return ::fstatat(folder, entry.d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0
             ? kind_of(facts.st_mode)
             : FolderEntry::Kind::other;
}

}  // namespace

// This changes no access time: only the list of its entries does.
Result<Folder> Folder::open(const std::string& path, AccessTimeGuard access_time_guard) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return fail(system_error(errno, to_terminal(path)));
  return Folder(path, fd, std::move(access_time_guard));
}

Result<Folder> Folder::open_or_create(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) {
    // The file mode creation mask may have taken permissions away.
    if (::chmod(path.c_str(), 0755) != 0)
      return fail(system_error(errno, path));
    const std::size_t slash = path.find_last_not_of('/');
    const Folder parent = TRY(open(path.substr(0, path.rfind('/', slash) + 1)));
    TRY(parent.sync());
  } else if (errno != EEXIST) {
    return fail(system_error(errno, path));
  }
  return open(path);
}

Folder::Folder(Folder&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      access_time_guard_(std::move(other.access_time_guard_)) {}

Folder& Folder::operator=(Folder&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(access_time_guard_, other.access_time_guard_);
  return *this;
}

Folder::~Folder() {
  if (fd_ >= 0)
    ::close(fd_);
}

std::string Folder::path_of(const std::string& name) const {
  return path_ == "/" ? path_ + name : path_ + "/" + name;
}

Result<bool> Folder::is_volatile() const {
  struct statfs facts = {};
  if (::fstatfs(fd_, &facts) != 0)
    return fail(system_error(errno, path_));
  return facts.f_type == TMPFS_MAGIC || facts.f_type == RAMFS_MAGIC;  // devtmpfs is one of them
}

Result<std::uint64_t> Folder::available_bytes() const {
  struct statvfs facts = {};
  if (::fstatvfs(fd_, &facts) != 0)
    return fail(system_error(errno, path_));
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

Result<bool> Folder::has(const std::string& name) const {
  struct stat facts = {};
  if (::fstatat(fd_, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0)
    return true;
  // No file has a name that is too long.
  if (errno == ENOENT || errno == ENAMETOOLONG)
    return false;
  return fail(system_error(errno, path_of(name)));
}

Result<std::vector<std::string>> Folder::names() const {
  std::vector<std::string> names;
  TRY(for_each_entry([&](FolderEntry entry) { names.push_back(std::move(entry.name)); }));
  return names;
}

Result<void> Folder::for_each_entry(const std::function<void(FolderEntry entry)>& take) const {
  // A description of its own: where it is in the folder is nobody else's business.
  Result<Descriptor> opened = open_to_read(fd_, path_, access_time_guard_);
  if (!opened)
    return fail(with_context(opened.error(), to_terminal(path_)));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(opened->get()), ::closedir);
  if (!stream)
    return fail(system_error(errno, to_terminal(path_)));
  (void)opened->release();
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..")
      take({std::string(name), kind_of(fd_, *entry)});
    errno = 0;
  }
  if (errno != 0)
    return fail(system_error(errno, to_terminal(path_)));
  return {};
}

bool Folder::has_file(const std::string& name, const FileIdentity& identity) const {
  struct stat facts = {};
  return ::fstatat(fd_, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
         FileIdentity{facts.st_dev, facts.st_ino} == identity;
}

bool Folder::is_also(const std::string& name, const Folder& other,
                     const std::string& other_name) const {
  struct stat facts = {};
  return ::fstatat(other.fd_, other_name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
         has_file(name, {facts.st_dev, facts.st_ino});
}

Result<bool> Folder::is_on_file_system_of(const Folder& other) const {
  struct stat mine = {};
  struct stat theirs = {};
  if (::fstat(fd_, &mine) != 0 || ::fstat(other.fd_, &theirs) != 0)
    return fail(system_error(errno, path_));
  return mine.st_dev == theirs.st_dev;
}

Result<FileIdentity> Folder::identity() const {
  struct stat facts = {};
  if (::fstat(fd_, &facts) != 0)
    return fail(system_error(errno, path_));
  return FileIdentity{facts.st_dev, facts.st_ino};
}

Result<std::uint64_t> Folder::file_system_of(const std::string& name) const {
  const Descriptor file(::openat(fd_, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat facts = {};
  struct statfs file_system = {};
  if (!file.is_open() || ::fstat(file.get(), &facts) != 0 ||
      ::fstatfs(file.get(), &file_system) != 0)
    return fail(system_error(errno, path_of(name)));
  std::uint64_t number = 0;
  static_assert(sizeof file_system.f_fsid == sizeof number);
  std::memcpy(&number, &file_system.f_fsid, sizeof number);
  // Most file systems have one of their own. Others repeat the number of the device.
  if (number != 0 && number != facts.st_dev)
    return number;
  return major(facts.st_dev) == 0
             ? facts.st_dev
             : lasting_identity_of_device(major(facts.st_dev), minor(facts.st_dev)).inode;
}

Result<std::unique_ptr<WritableFile>> Folder::create(const std::string& name) const {
  const int fd =
      ::openat(fd_, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    return fail(named_error(errno, path_of(name)));
  return adopt_for_writing(Descriptor(fd));
}

Result<std::unique_ptr<File>> Folder::read(const std::string& name) const {
  const std::string path = path_of(name);
  const Descriptor found = TRY(find_regular(fd_, name, path));
  Result<Descriptor> opened = open_to_read(found.get(), path, access_time_guard_);
  if (!opened)
    return fail(with_context(opened.error(), path));
  return adopt(std::move(*opened));
}

Result<std::unique_ptr<WritableFile>> Folder::open_file(const std::string& name) const {
  const std::string path = path_of(name);
  const Descriptor found = TRY(find_regular(fd_, name, path));
  Descriptor opened(::open(fmt::format("/proc/self/fd/{}", found.get()).c_str(),
                           O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!opened.is_open())
    return fail(named_error(errno, path));
  return adopt_for_writing(std::move(opened));
}

Result<std::uint32_t> Folder::owner_of(const std::string& name) const {
  struct stat facts = {};
  if (::fstatat(fd_, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0)
    return fail(named_error(errno, path_of(name)));
  return facts.st_uid;
}

Result<void> Folder::move(const std::string& from, const Folder& to_folder,
                          const std::string& to) const {
  if (::renameat2(fd_, from.c_str(), to_folder.fd_, to.c_str(), RENAME_NOREPLACE) == 0)
    return {};
  // Some file systems cannot do that at once; a second name and then the removal of the first can.
  const bool is_unknown = errno == EINVAL || errno == ENOSYS;
  if (!is_unknown || ::linkat(fd_, from.c_str(), to_folder.fd_, to.c_str(), 0) != 0)
    return fail(named_error(errno, to_folder.path_of(to)));
  return remove(from);
}

Result<void> Folder::remove(const std::string& name) const {
  if (::unlinkat(fd_, name.c_str(), 0) != 0)
    return fail(system_error(errno, path_of(name)));
  return {};
}

Result<void> Folder::sync() const {
  if (::fsync(fd_) != 0)
    return fail(system_error(errno, path_));
  return {};
}

}  // namespace coldchain::io
