// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include <coldchain/base/try.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace coldchain::io {

namespace {

constexpr auto max_offset = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

Timestamp to_timestamp(const statx_timestamp& time) {
  return {time.tv_sec, time.tv_nsec};
}

class PosixFile final : public File {
 public:
  PosixFile(Descriptor descriptor, const FileStatus& status)
      : descriptor_(std::move(descriptor)), status_(status) {}

  [[nodiscard]] const FileStatus& status() const override { return status_; }

  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    std::size_t done = 0;
    while (done < buffer.size()) {
      const std::uint64_t at = offset.value + done;
      if (at > max_offset - (buffer.size() - done))
        break;  // no file reaches that far
      const ssize_t count = ::pread(descriptor_.get(), buffer.data() + done, buffer.size() - done,
                                    static_cast<off_t>(at));
      if (count < 0 && errno == EINTR)
        continue;
      if (count < 0)
        return fail(system_error(errno, fmt::format("reading at {:#x}", at)));
      if (count == 0)
        break;
      done += static_cast<std::size_t>(count);
    }
    return done;
  }

  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    // As for QEMU, a device has no holes; nor has a file on a system that does not tell.
    return status_.kind == FileKind::block_device ? from : seek(from, SEEK_DATA, from);
  }

  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    const HostOffset end{status_.size};
    return status_.kind == FileKind::block_device ? end : seek(from, SEEK_HOLE, end);
  }

  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    struct flock lock = {};
    lock.l_type = F_WRLCK;  // whatever anybody holds on this byte conflicts with it
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(byte);
    lock.l_len = 1;
    if (::fcntl(descriptor_.get(), F_OFD_GETLK, &lock) != 0) {
      // A file system without locks has none that are held.
      if (errno == EINVAL || errno == ENOLCK || errno == ENOTSUP || errno == ENOSYS)
        return false;
      return fail(system_error(errno, "testing the image's locks"));
    }
    return lock.l_type != F_UNLCK;
  }

 private:
  [[nodiscard]] HostOffset seek(HostOffset from, int whence, HostOffset if_not_told) const {
    const HostOffset end{status_.size};
    if (from >= end)
      return end;
    const off_t found = ::lseek(descriptor_.get(), static_cast<off_t>(from.value), whence);
    if (found >= 0)
      return std::min(HostOffset{static_cast<std::uint64_t>(found)}, end);
    return errno == ENXIO ? end : if_not_told;  // ENXIO: nothing of the kind follows
  }

  Descriptor descriptor_;
  FileStatus status_;
};

Result<void> read_device_facts(int fd, FileStatus& status) {
  std::uint64_t size = 0;
  int sector_size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0 || ::ioctl(fd, BLKSSZGET, &sector_size) != 0)
    return fail(system_error(errno, "asking the block device for its size"));
  status.size = size;
  status.sector_size = static_cast<std::uint32_t>(sector_size);
  status.allocated = 0;
  return {};
}

}  // namespace

Descriptor::Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0)
    ::close(fd_);
}

Result<std::unique_ptr<File>> open_descriptor(const Descriptor& path_descriptor) {
  struct statx facts = {};
  if (::statx(path_descriptor.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &facts) !=
      0)
    return fail(system_error(errno, ""));
  if (S_ISDIR(facts.stx_mode))
    return fail(ErrorCode::invalid_argument, "is a directory, not an image");
  if (!S_ISREG(facts.stx_mode) && !S_ISBLK(facts.stx_mode))
    return fail(ErrorCode::invalid_argument,
                "is a FIFO, socket or character device; only regular files and block devices are "
                "opened");

  // What was looked at is what is opened: no other file can slip in between the two.
  const std::string self = fmt::format("/proc/self/fd/{}", path_descriptor.get());
  constexpr int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
  int fd = ::open(self.c_str(), flags | O_NOATIME);
  if (fd < 0 && errno == EPERM)
    fd = ::open(self.c_str(), flags);  // only the owner may leave the access time alone
  if (fd < 0)
    return fail(system_error(errno, ""));
  Descriptor descriptor(fd);

  FileStatus status;
  status.kind = S_ISBLK(facts.stx_mode) ? FileKind::block_device : FileKind::regular;
  status.size = facts.stx_size;
  status.allocated = facts.stx_blocks * 512;
  status.identity = {makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino};
  if (status.kind == FileKind::block_device) {
    // Two nodes of one device are one device.
    status.identity = {~0ULL, makedev(facts.stx_rdev_major, facts.stx_rdev_minor)};
    TRY(read_device_facts(fd, status));
  }
  status.mode = facts.stx_mode & 07777U;
  status.owner = facts.stx_uid;
  status.group = facts.stx_gid;
  status.accessed = to_timestamp(facts.stx_atime);
  status.modified = to_timestamp(facts.stx_mtime);
  status.changed = to_timestamp(facts.stx_ctime);
  if ((facts.stx_mask & STATX_BTIME) != 0)
    status.born = to_timestamp(facts.stx_btime);
  return std::make_unique<PosixFile>(std::move(descriptor), status);
}

}  // namespace coldchain::io
