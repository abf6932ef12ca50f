// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <optional>
#include <string_view>
#include <utility>

#include <coldchain/base/try.hpp>
#include <coldchain/io/open.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace coldchain::io {

namespace {

Result<std::string> absolute_path(std::string_view path) {
  std::string result;
  if (!path.starts_with('/')) {
    std::array<char, PATH_MAX> here{};
    if (::getcwd(here.data(), here.size()) == nullptr)
      return fail(system_error(errno, "current directory"));
    result = here.data();
  }
  // "." and "//" mean nothing; ".." is left to the kernel, which knows the symbolic links.
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (!part.empty() && part != ".")
      result.append("/").append(part);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return result.empty() ? "/" : result;
}

// What follows `directory` in `path`, both absolute, or nothing if it does not lie beneath it.
std::optional<std::string> beneath(std::string_view path, std::string_view directory) {
  if (directory == "/")
    return std::string(path.substr(1));
  if (!path.starts_with(directory) || path.size() <= directory.size() ||
      path[directory.size()] != '/')
    return std::nullopt;
  return std::string(path.substr(directory.size() + 1));
}

Result<Descriptor> open_beneath(int directory, const std::string& path, std::uint64_t resolve) {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = resolve | RESOLVE_NO_MAGICLINKS;
  int fd = -1;
  for (int tries = 0; fd < 0 && tries < 8; ++tries) {
    fd = static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how));
    if (fd < 0 && errno != EAGAIN)  // EAGAIN: somebody renamed on the way
      break;
  }
  if (fd >= 0)
    return Descriptor(fd);
  if (errno == EXDEV)
    return fail(Error{ErrorCode::refused, "leads outside the root", EXDEV});
  if (errno == ENOSYS)
    return fail(ErrorCode::unsupported,
                "--root and --sysroot need openat2 (Linux 5.6), which this kernel does not have");
  return fail(system_error(errno, ""));
}

class SystemFiles final : public FileSource {
 public:
  explicit SystemFiles(bool steady_holes) : steady_holes_(steady_holes) {}
  SystemFiles(Descriptor directory, std::string directory_path, const OpenPolicy& policy)
      : directory_(std::move(directory)),
        directory_path_(std::move(directory_path)),
        confined_(!policy.root.empty()),
        steady_holes_(policy.steady_holes) {}

  [[nodiscard]] Result<std::unique_ptr<File>> open(const std::string& path) const override {
    return open_descriptor(TRY(open_path(path)), steady_holes_);
  }

 private:
  [[nodiscard]] Result<Descriptor> open_path(const std::string& path) const {
    if (path.empty())
      return fail(system_error(ENOENT, ""));
    if (path.find('\0') != std::string::npos)
      return fail(ErrorCode::invalid_argument, "a file name cannot contain a NUL byte");
    if (directory_.is_open()) {
      const std::string absolute = TRY(absolute_path(path));
      const std::optional<std::string> rest = beneath(absolute, directory_path_);
      if (confined_) {
        if (!rest)
          return fail(ErrorCode::refused, fmt::format("lies outside the root {}", directory_path_));
        return open_beneath(directory_.get(), *rest, RESOLVE_BENEATH);
      }
      if (rest || path.starts_with('/'))
        return open_beneath(directory_.get(), rest ? *rest : absolute, RESOLVE_IN_ROOT);
    }
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0)
      return fail(system_error(errno, ""));
    return Descriptor(fd);
  }

  Descriptor directory_;  // the root or sysroot, if there is one
  std::string directory_path_;
  bool confined_ = false;  // a root: nothing outside
  bool steady_holes_ = false;
};

}  // namespace

Result<std::unique_ptr<FileSource>> system_files(const OpenPolicy& policy) {
  if (!policy.root.empty() && !policy.sysroot.empty())
    return fail(ErrorCode::invalid_argument, "--root and --sysroot exclude each other");
  const std::string& directory = policy.root.empty() ? policy.sysroot : policy.root;
  if (directory.empty())
    return std::make_unique<SystemFiles>(policy.steady_holes);
  const int fd = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return fail(system_error(errno, directory));
  Descriptor descriptor(fd);
  return std::make_unique<SystemFiles>(std::move(descriptor), TRY(absolute_path(directory)),
                                       policy);
}

}  // namespace coldchain::io
