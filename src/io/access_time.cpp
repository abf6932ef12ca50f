// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <cerrno>

#include <coldchain/base/try.hpp>
#include <coldchain/io/access_time.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>

namespace coldchain::io {

namespace {

// Whether the mount changes no access times.
bool has_fixed_access_times(int fd) {
  struct statvfs facts = {};
  return ::fstatvfs(fd, &facts) == 0 && (facts.f_flag & (ST_NOATIME | ST_RDONLY)) != 0;
}

}  // namespace

Result<Descriptor> open_to_read(int fd, const std::string& path, const AccessTimeGuard& guard) {
  // What was looked at is what is opened: no other file can slip in between the two.
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  constexpr int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
  Descriptor opened(::open(self.c_str(), flags | O_NOATIME));
  // The system refuses with another error what the caller may not read at all.
  if (!opened.is_open() && errno == EPERM) {
    if (guard && !has_fixed_access_times(fd))
      TRY(guard(path));
    opened = Descriptor(::open(self.c_str(), flags));
  }
  if (!opened.is_open())
    return fail(system_error(errno, ""));
  return opened;
}

}  // namespace coldchain::io
