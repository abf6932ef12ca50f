// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace coldchain::io {

namespace {

constexpr auto max_offset = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

Timestamp to_timestamp(const statx_timestamp& time) {
  return {time.tv_sec, time.tv_nsec};
}

// "PATH " where the file has a name.
std::string name_for_error(int fd) {
  const int error = std::exchange(errno, 0);
  const Result<Location> location = location_of(fd);
  errno = error;
  return location ? to_terminal(location->folder + "/" + location->name) + " " : "";
}

// Reading, as both kinds of file below do it.
Result<std::size_t> read_from(int fd, HostOffset offset, ByteSpan buffer) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const std::uint64_t at = offset.value + done;
    if (at > max_offset - (buffer.size() - done))
      break;  // no file reaches that far
    const ssize_t count =
        ::pread(fd, buffer.data() + done, buffer.size() - done, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail(system_error(errno, fmt::format("reading {}at {:#x}", name_for_error(fd), at)));
    if (count == 0)
      break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

struct flock lock_of(std::uint64_t byte, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

// A file system without locks has none that are held.
bool has_no_locks(int error) {
  return error == EINVAL || error == ENOLCK || error == ENOTSUP || error == ENOSYS;
}

// Calls `take` for the parts of `range` that have storage, with what FIEMAP says of them; sorted,
// disjoint. Whether the system tells.
template <class Take>
bool for_each_extent(int fd, HostRange range, std::uint32_t flags, const Take& take) {
  constexpr std::uint32_t most_extents = 128;
  std::vector<std::byte> buffer(sizeof(fiemap) + most_extents * sizeof(fiemap_extent));
  auto* const map = reinterpret_cast<fiemap*>(buffer.data());
  const auto* const found = reinterpret_cast<const fiemap_extent*>(buffer.data() + sizeof(fiemap));
  for (std::uint64_t at = range.begin.value; at < range.end.value;) {
    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    map->fm_start = at;
    map->fm_length = range.end.value - at;
    map->fm_flags = flags;
    map->fm_extent_count = most_extents;
    if (::ioctl(fd, FS_IOC_FIEMAP, map) != 0)
      return false;
    const std::span<const fiemap_extent> extents(found, map->fm_mapped_extents);
    if (extents.empty())
      break;
    std::uint64_t next = at;
    for (const fiemap_extent& extent : extents) {
      const std::uint64_t begin = std::max<std::uint64_t>(extent.fe_logical, next);
      const std::uint64_t end =
          std::min<std::uint64_t>(extent.fe_logical + extent.fe_length, range.end.value);
      if (end > begin)
        take(HostRange{{begin}, {end}}, extent.fe_flags);
      next = std::max(next, end);
    }
    const bool is_last = (extents.back().fe_flags & FIEMAP_EXTENT_LAST) != 0;
    if (is_last || next <= at)
      break;
    at = next;
  }
  return true;
}

// The file behind `fd`, for reading and writing; a block device only if nobody has mounted or holds
// it.
Result<std::unique_ptr<WritableFile>> reopen_for_writing(int fd);

// `Base` is File or WritableFile: what both do alike.
template <class Base>
class PosixFileBase : public Base {
 public:
  PosixFileBase(Descriptor descriptor, const FileStatus& status)
      : descriptor_(std::move(descriptor)), status_(status) {}

  [[nodiscard]] const FileStatus& status() const override { return status_; }

  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    return read_from(fd(), offset, buffer);
  }

  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    // As for QEMU, a device has no holes; nor has a file on a system that does not tell.
    return status_.kind == FileKind::block_device ? from : seek(from, SEEK_DATA, from);
  }

  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    const HostOffset end{status_.size};
    return status_.kind == FileKind::block_device ? end : seek(from, SEEK_HOLE, end);
  }

  // Reserved extents, too, look like holes to SEEK_DATA.
  [[nodiscard]] Result<std::uint64_t> bytes_without_storage(HostRange range) const override {
    std::uint64_t bytes = range.size();
    const auto take = [&](HostRange extent, std::uint32_t /*flags*/) { bytes -= extent.size(); };
    return for_each_extent(fd(), range, 0, take) ? bytes : Base::bytes_without_storage(range);
  }

  [[nodiscard]] Result<Location> location() const override { return location_of(fd()); }

  [[nodiscard]] std::optional<std::string> security_label() const override {
    std::array<char, 4096> label{};
    const ssize_t size = ::fgetxattr(fd(), "security.selinux", label.data(), label.size());
    if (size <= 0)
      return std::nullopt;
    // It ends with a zero byte, which is no part of it.
    return std::string(label.data(), ::strnlen(label.data(), static_cast<std::size_t>(size)));
  }

  [[nodiscard]] Result<std::unique_ptr<WritableFile>> open_for_writing() const override {
    return reopen_for_writing(fd());
  }

  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    // Whatever anybody else holds on this byte conflicts with a lock for writing.
    struct flock lock = lock_of(byte, F_WRLCK);
    if (::fcntl(fd(), F_OFD_GETLK, &lock) == 0)
      return lock.l_type != F_UNLCK;
    if (has_no_locks(errno))
      return false;
    return fail(system_error(errno, "testing the image's locks"));
  }

  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    struct flock lock = lock_of(byte, F_RDLCK);
    if (::fcntl(fd(), F_OFD_SETLK, &lock) == 0 || has_no_locks(errno))
      return {};
    if (errno == EAGAIN || errno == EACCES)
      return fail(ErrorCode::locked, "another process holds the image's locks");
    return fail(system_error(errno, "locking the image"));
  }

 protected:
  [[nodiscard]] int fd() const { return descriptor_.get(); }
  [[nodiscard]] FileStatus& mutable_status() { return status_; }

 private:
  [[nodiscard]] HostOffset seek(HostOffset from, int whence, HostOffset if_not_told) const {
    const HostOffset end{status_.size};
    if (from >= end)
      return end;
    const off_t found = ::lseek(fd(), static_cast<off_t>(from.value), whence);
    if (found >= 0)
      return std::min(HostOffset{static_cast<std::uint64_t>(found)}, end);
    return errno == ENXIO ? end : if_not_told;  // ENXIO: nothing of the kind follows
  }

  Descriptor descriptor_;
  FileStatus status_;
};

using PosixFile = PosixFileBase<File>;

// What is reserved of a file of `size` bytes and holds nothing yet: sorted, disjoint. `flags` are
// those of FIEMAP.
std::vector<HostRange> reserved_extents(int fd, std::uint64_t size, std::uint32_t flags) {
  std::vector<HostRange> reserved;
  const auto take = [&](HostRange extent, std::uint32_t what) {
    if ((what & FIEMAP_EXTENT_UNWRITTEN) != 0)
      reserved.push_back(extent);
  };
  if (!for_each_extent(fd, {{0}, {size}}, flags, take))
    reserved.clear();
  return reserved;
}

// Whose reserved extents are holes. They are looked for when the first hole is asked for: who
// changes an image has locked it by then, and sees by the status, which is older, who wrote to it.
class SteadyPosixFile final : public PosixFile {
 public:
  using PosixFileBase::PosixFileBase;

  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    for (HostOffset at = from;;) {
      const HostOffset data = TRY(PosixFile::next_data(at));
      const auto range = reserved_behind(data);
      if (range == reserved_.end() || data < range->begin)
        return data;
      at = range->end;
    }
  }

  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    const HostOffset hole = TRY(PosixFile::next_hole(from));
    const auto range = reserved_behind(from);
    return range == reserved_.end() ? hole : std::min(hole, std::max(from, range->begin));
  }

 private:
  // The first that ends behind `offset`.
  [[nodiscard]] std::vector<HostRange>::const_iterator reserved_behind(HostOffset offset) const {
    std::call_once(is_known_, [this] { reserved_ = reserved_now(); });
    return std::partition_point(reserved_.begin(), reserved_.end(),
                                [&](const HostRange& range) { return range.end <= offset; });
  }

  [[nodiscard]] std::vector<HostRange> reserved_now() const {
    std::vector<HostRange> reserved = reserved_extents(fd(), size(), 0);
    // What is only in the page cache is no hole: it is written first.
    return reserved.empty() ? reserved : reserved_extents(fd(), size(), FIEMAP_FLAG_SYNC);
  }

  mutable std::once_flag is_known_;
  mutable std::vector<HostRange> reserved_;
};

Result<FileStatus> status_of(int fd);

class WritablePosixFile final : public PosixFileBase<WritableFile> {
 public:
  using PosixFileBase::PosixFileBase;

  [[nodiscard]] Result<void> write_at(HostOffset offset, ByteView bytes) override {
    bool is_direct = bytes.size() >= least_direct_bytes && can_be_direct(offset, bytes);
    for (std::size_t done = 0; done < bytes.size();) {
      const std::uint64_t at = offset.value + done;
      if (at > max_offset - (bytes.size() - done))
        return fail(system_error(EFBIG, fmt::format("writing at {:#x}", at)));
      const ssize_t count = ::pwrite(is_direct ? direct_.get() : fd(), bytes.data() + done,
                                     bytes.size() - done, static_cast<off_t>(at));
      if (count < 0 && errno == EINTR)
        continue;
      // The storage has larger blocks, or can only be written to through the cache.
      if (count < 0 && is_direct && (errno == EINVAL || errno == EOPNOTSUPP)) {
        direct_ = Descriptor();
        is_direct = false;
        continue;
      }
      if (count <= 0)
        return fail(system_error(count < 0 ? errno : ENOSPC, fmt::format("writing at {:#x}", at)));
      done += static_cast<std::size_t>(count);
      is_direct = is_direct && is_aligned(done, direct_alignment);
    }
    mutable_status().size = std::max(status().size, offset.value + bytes.size());
    return {};
  }

  [[nodiscard]] Result<void> write_zeroes(HostOffset offset, std::uint64_t size) override {
    const auto end = checked_add(offset.value, size);
    if (!end || *end > max_offset)
      return fail(system_error(EFBIG, fmt::format("writing at {:#x}", offset.value)));
    if (!punch(offset, size))
      return WritableFile::write_zeroes(offset, size);
    return *end > status().size ? resize(*end) : Result<void>{};
  }

  [[nodiscard]] Result<void> reserve(HostRange range) override {
    int failed = 0;
    do
      failed = ::fallocate(fd(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.begin.value),
                           static_cast<off_t>(range.size()));
    while (failed != 0 && errno == EINTR);
    if (failed == 0)
      return {};
    // A device, or a system that has no such thing.
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV || errno == EINVAL)
      return WritableFile::reserve(range);
    return fail(system_error(errno, fmt::format("reserving storage at {:#x}", range.begin.value)));
  }

  void discard(HostOffset offset, std::uint64_t size) override { (void)punch(offset, size); }

  [[nodiscard]] Result<void> resize(std::uint64_t size) override {
    if (size > max_offset || ::ftruncate(fd(), static_cast<off_t>(size)) != 0)
      return fail(system_error(size > max_offset ? EFBIG : errno,
                               fmt::format("changing the size to {} bytes", size)));
    mutable_status().size = size;
    return {};
  }

  [[nodiscard]] Result<void> flush() override {
    // The time of the last change, too: by it an undo knows that nobody has written since.
    if (::fsync(fd()) != 0)
      return fail(system_error(errno, "flushing"));
    return {};
  }

  void start_writeback(HostOffset offset, std::uint64_t size) override {
    // A help, no promise: where it fails, flush() does it all.
    (void)::sync_file_range(fd(), static_cast<off_t>(offset.value), static_cast<off_t>(size),
                            SYNC_FILE_RANGE_WRITE);
  }

  [[nodiscard]] Result<void> refresh() override {
    mutable_status() = TRY(status_of(fd()));
    return {};
  }

 private:
  static constexpr std::size_t least_direct_bytes = 256 << 10;

  [[nodiscard]] bool can_be_direct(HostOffset offset, ByteView bytes) {
    if (!is_aligned(offset.value | bytes.size() | reinterpret_cast<std::uintptr_t>(bytes.data()),
                    direct_alignment))
      return false;
    if (!std::exchange(was_direct_tried_, true))
      direct_ = Descriptor(
          ::open(fmt::format("/proc/self/fd/{}", fd()).c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
    return direct_.is_open();
  }

  // Whether what of the range the file has reads as zeros now.
  [[nodiscard]] bool punch(HostOffset offset, std::uint64_t size) {
    return ::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       static_cast<off_t>(offset.value), static_cast<off_t>(size)) == 0;
  }

  Descriptor direct_;  // the same file, if it can be opened so
  bool was_direct_tried_ = false;
};

Result<void> read_device_facts(int fd, FileStatus& status) {
  std::uint64_t size = 0;
  int sector_size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0 || ::ioctl(fd, BLKSSZGET, &sector_size) != 0)
    return fail(system_error(errno, "asking the block device for its size"));
  status.size = size;
  status.sector_size = static_cast<std::uint32_t>(sector_size);
  status.allocated = 0;
  int is_read_only = 0;
  if (::ioctl(fd, BLKROGET, &is_read_only) != 0)
    return fail(system_error(errno, "asking the block device whether it is read-only"));
  status.is_read_only = is_read_only != 0;
  return {};
}

// Whether it is a block device; neither that nor a regular file is an error.
Result<bool> check_kind(int fd) {
  struct stat facts = {};
  if (::fstat(fd, &facts) != 0)
    return fail(system_error(errno, ""));
  if (S_ISDIR(facts.st_mode))
    return fail(ErrorCode::invalid_argument, "is a directory, not an image");
  if (!S_ISREG(facts.st_mode) && !S_ISBLK(facts.st_mode))
    return fail(ErrorCode::invalid_argument,
                "is a FIFO, socket or character device; only regular files and block devices are "
                "opened");
  return S_ISBLK(facts.st_mode);
}

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Of a volume its UUID, of a disk its WWID or serial number, of a loop device its file; of a
// partition that of its disk, and which it is.
std::string lasting_name(const std::string& device) {
  if (const std::string partition = first_line_of(device + "/partition"); !partition.empty()) {
    const std::string disk = lasting_name(device + "/..");
    return disk.empty() ? "" : fmt::format("{} partition {}", disk, partition);
  }
  // What one file says may not tell apart two devices: with it come others that do not change.
  const std::initializer_list<std::vector<const char*>> kinds = {
      {"/dm/uuid"},
      {"/md/uuid"},
      {"/loop/backing_file", "/loop/offset", "/loop/sizelimit"},
      {"/wwid", "/size"},
      {"/device/wwid", "/size"},
      {"/serial", "/size"},
      {"/device/serial", "/size"}};
  for (const std::vector<const char*>& files : kinds) {
    std::string name = first_line_of(device + files.front());
    if (name.empty())
      continue;
    for (const char* file : std::span(files).subspan(1))
      name.append(" ").append(first_line_of(device + file));
    return name;
  }
  return "";
}

// FNV-1a.
std::uint64_t digest(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

Result<FileStatus> status_of(int fd) {
  struct statx facts = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &facts) != 0)
    return fail(system_error(errno, ""));
  FileStatus status;
  status.kind = S_ISBLK(facts.stx_mode) ? FileKind::block_device : FileKind::regular;
  status.size = facts.stx_size;
  status.allocated = facts.stx_blocks * 512;
  status.identity = {makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino};
  status.lasting_identity = status.identity;
  if (status.kind == FileKind::block_device) {
    // Two nodes of one device are one device.
    status.identity = {~0ULL, makedev(facts.stx_rdev_major, facts.stx_rdev_minor)};
    status.lasting_identity =
        lasting_identity_of_device(facts.stx_rdev_major, facts.stx_rdev_minor);
    TRY(read_device_facts(fd, status));
  }
  status.links = facts.stx_nlink;
  status.mode = facts.stx_mode & 07777U;
  status.owner = facts.stx_uid;
  status.group = facts.stx_gid;
  status.accessed = to_timestamp(facts.stx_atime);
  status.modified = to_timestamp(facts.stx_mtime);
  status.changed = to_timestamp(facts.stx_ctime);
  if ((facts.stx_mask & STATX_BTIME) != 0)
    status.born = to_timestamp(facts.stx_btime);
  return status;
}

Result<std::unique_ptr<WritableFile>> reopen_for_writing(int fd) {
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  // Without O_CREAT, O_EXCL asks for a block device that nobody has mounted or holds.
  const int exclusive = TRY(check_kind(fd)) ? O_EXCL : 0;
  Descriptor descriptor(::open(self.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | exclusive));
  if (!descriptor.is_open() && errno == EBUSY)
    return fail(
        Error{ErrorCode::locked, "is mounted, or held by another user of the device", EBUSY});
  if (!descriptor.is_open())
    return fail(system_error(errno, ""));
  return adopt_for_writing(std::move(descriptor));
}

}  // namespace

FileIdentity lasting_identity_of_device(std::uint32_t major_number, std::uint32_t minor_number) {
  // /sys/dev/block/M:N is a symbolic link, which ".." must not undo.
  std::error_code error;
  const std::filesystem::path device = std::filesystem::canonical(
      fmt::format("/sys/dev/block/{}:{}", major_number, minor_number), error);
  const std::string name = error ? "" : lasting_name(device);
  return {~0ULL, name.empty() ? makedev(major_number, minor_number) : digest(name)};
}

// A file that was deleted, or lies outside of what this process sees, has no path.
Result<Location> location_of(int fd) {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t size =
      ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), buffer.data(), buffer.size());
  if (size < 0)
    return fail(system_error(errno, "finding the file's folder"));
  const std::string path(buffer.data(), static_cast<std::size_t>(size));
  struct stat by_path = {};
  struct stat by_descriptor = {};
  if (!path.starts_with('/') || ::lstat(path.c_str(), &by_path) != 0 ||
      ::fstat(fd, &by_descriptor) != 0 || by_path.st_ino != by_descriptor.st_ino ||
      by_path.st_dev != by_descriptor.st_dev)
    return fail(ErrorCode::not_found, "the file was deleted or moved while it was open");
  const std::size_t slash = path.rfind('/');
  return Location{slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

Descriptor::Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0)
    ::close(fd_);
}

Result<std::unique_ptr<File>> open_descriptor(const Descriptor& path_descriptor,
                                              const std::string& path, const AccessTimeGuard& guard,
                                              bool steady_holes) {
  const bool is_device = TRY(check_kind(path_descriptor.get()));
  Descriptor descriptor = TRY(open_to_read(path_descriptor.get(), path, guard));
  if (!steady_holes || is_device)
    return adopt(std::move(descriptor));
  const FileStatus status = TRY(status_of(descriptor.get()));
  return std::make_unique<SteadyPosixFile>(std::move(descriptor), status);
}

Result<std::unique_ptr<File>> adopt(Descriptor descriptor) {
  const FileStatus status = TRY(status_of(descriptor.get()));
  return std::make_unique<PosixFile>(std::move(descriptor), status);
}

Result<std::unique_ptr<WritableFile>> adopt_for_writing(Descriptor descriptor) {
  const FileStatus status = TRY(status_of(descriptor.get()));
  return std::make_unique<WritablePosixFile>(std::move(descriptor), status);
}

}  // namespace coldchain::io
