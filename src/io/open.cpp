// SPDX-License-Identifier: MIT
#include "posix_file.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/open.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace coldchain::io {

namespace {

// "." and "//" mean nothing; ".." is left to the kernel, which knows the symbolic links.
std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (!part.empty() && part != ".")
      parts.push_back(part);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return parts;
}

// Whether a path can only be of a directory, as open(2) has it: the parts do not say so.
bool ends_as_directory(std::string_view path) {
  return path == "." || path.ends_with('/') || path.ends_with("/.");
}

// Where a path starts: "" is the root.
Result<std::string> start_of(std::string_view path) {
  std::array<char, PATH_MAX> here{};
  if (path.starts_with('/'))
    return std::string();
  if (::getcwd(here.data(), here.size()) == nullptr)
    return fail(system_error(errno, "current directory"));
  const std::string current(here.data());
  return current == "/" ? std::string() : current;
}

Result<std::string> absolute_path(std::string_view path) {
  std::string result = TRY(start_of(path));
  for (const std::string_view part : parts_of(path))
    result.append("/").append(part);
  return result.empty() ? "/" : result;
}

// What follows `directory` in `path`, both absolute: "", "/a", "/a/b". Nothing if `path` does not
// lie there.
std::optional<std::string> rest_below(std::string_view path, std::string_view directory) {
  if (directory == "/")
    return std::string(path == "/" ? "" : path);
  if (!path.starts_with(directory) ||
      (path.size() > directory.size() && path[directory.size()] != '/'))
    return std::nullopt;
  return std::string(path.substr(directory.size()));
}

Result<std::string> real_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? fail(system_error(error.value(), path)) : Result<std::string>(real.string());
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

// The root or sysroot.
class Confines {
 public:
  static Result<Confines> of(const OpenPolicy& policy) {
    Confines confines;
    confines.is_sysroot_ = policy.root.empty();
    confines.given_ = confines.is_sysroot_ ? policy.sysroot : policy.root;
    const int fd = ::open(confines.given_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
      return fail(system_error(errno, confines.given_));
    confines.directory_ = Descriptor(fd);
    confines.spelled_ = TRY(absolute_path(confines.given_));
    confines.real_ = TRY(real_path(confines.given_));
    return confines;
  }

  [[nodiscard]] Result<Descriptor> open(const std::string& name) const {
    if (is_sysroot_)
      return open_beneath(directory_.get(), name, RESOLVE_IN_ROOT);
    const std::optional<std::string> rest = rest_as_spelled(TRY(absolute_path(name)));
    if (!rest)
      return fail(ErrorCode::refused, fmt::format("lies outside the root {}", to_terminal(given_)));
    return open_beneath(directory_.get(), "." + *rest + (ends_as_directory(name) ? "/" : ""),
                        RESOLVE_BENEATH);
  }

  [[nodiscard]] Result<std::string> name_of(const std::string& operand) const {
    if (!is_sysroot_ && rest_as_spelled(TRY(absolute_path(operand))))
      return operand;
    std::optional<std::string> inside = TRY(inside_of(operand));
    if (inside && !inside->empty() && ends_as_directory(operand))
      inside->push_back('/');
    if (inside && is_sysroot_)
      return inside->empty() ? "/" : *inside;
    if (inside)
      return real_ == "/" ? *inside : real_ + *inside;
    if (is_sysroot_ && !operand.starts_with('/'))
      return fail(ErrorCode::refused,
                  fmt::format("lies outside the sysroot '{}': name it by its path beneath that "
                              "directory",
                              to_terminal(given_)));
    return operand;
  }

  [[nodiscard]] std::string operand_of(const std::string& name) const {
    if (!is_sysroot_)
      return name;
    std::string operand = given_.ends_with('/') ? given_ : given_ + "/";
    return operand.append(name, name.starts_with('/') ? 1 : 0);
  }

 private:
  Confines() = default;

  [[nodiscard]] std::optional<std::string> rest_as_spelled(const std::string& absolute) const {
    std::optional<std::string> rest = rest_below(absolute, spelled_);
    return rest ? rest : rest_below(absolute, real_);
  }

  // Where in the directory an operand lies: "", "/a", "/a/b"; nothing if it lies elsewhere. Links
  // lead where they lead on the host until one is in the directory; from there on it is "/".
  // This only chooses a name: that is opened by the descriptor, whatever has changed since.
  [[nodiscard]] Result<std::optional<std::string>> inside_of(const std::string& operand) const {
    std::string host = TRY(start_of(operand));
    std::string inside;
    const auto enter = [&](const std::string& path) {
      const std::optional<std::string> rest = rest_below(path, real_);
      inside = rest.value_or("");
      return rest.has_value();
    };
    bool is_inside = enter(host.empty() ? "/" : host);
    for (const std::string_view part : parts_of(operand)) {
      if (is_inside && part == ".." && inside.empty()) {
        host = real_;
        is_inside = false;
      }
      if (is_inside) {
        inside.append("/").append(part);
        if (is_directory_itself(inside))
          inside.clear();
        continue;
      }
      host.append("/").append(part);
      if (const Result<std::string> real = real_path(host))
        is_inside = enter(*real);
    }
    return is_inside ? std::optional(inside) : std::nullopt;
  }

  [[nodiscard]] bool is_directory_itself(const std::string& inside) const {
    const Result<Descriptor> opened = open_beneath(directory_.get(), inside, RESOLVE_IN_ROOT);
    struct stat one = {};
    struct stat other = {};
    return opened && ::fstat(opened->get(), &one) == 0 && ::fstat(directory_.get(), &other) == 0 &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
  }

  Descriptor directory_;
  bool is_sysroot_ = false;
  std::string given_;
  std::string spelled_;  // absolute, with the symbolic links that were given
  std::string real_;     // absolute, without any
};

class SystemFiles final : public FileSource {
 public:
  SystemFiles(std::optional<Confines> confines, const OpenPolicy& policy)
      : confines_(std::move(confines)),
        steady_holes_(policy.steady_holes),
        access_time_guard_(policy.access_time_guard) {}

  [[nodiscard]] Result<std::string> name_of(const std::string& operand) const override {
    // A bad name is told where it is opened.
    if (!confines_ || !check_name(operand))
      return operand;
    return confines_->name_of(operand);
  }

  [[nodiscard]] std::string operand_of(const std::string& name) const override {
    return confines_ ? confines_->operand_of(name) : name;
  }

  [[nodiscard]] Result<std::string> real_folder(const std::string& name) const override {
    const Descriptor folder = TRY(open_path(name));
    const Location location = TRY(location_of(folder.get()));
    return (location.folder == "/" ? "" : location.folder) + "/" + location.name;
  }

  [[nodiscard]] Result<std::unique_ptr<File>> open(const std::string& path) const override {
    return open_descriptor(TRY(open_path(path)), operand_of(path), access_time_guard_,
                           steady_holes_);
  }

 private:
  static Result<void> check_name(const std::string& path) {
    if (path.empty())
      return fail(system_error(ENOENT, ""));
    if (path.find('\0') != std::string::npos)
      return fail(ErrorCode::invalid_argument, "a file name cannot contain a NUL byte");
    return {};
  }

  [[nodiscard]] Result<Descriptor> open_path(const std::string& path) const {
    TRY(check_name(path));
    if (confines_)
      return confines_->open(path);
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0)
      return fail(system_error(errno, ""));
    return Descriptor(fd);
  }

  std::optional<Confines> confines_;
  bool steady_holes_ = false;
  AccessTimeGuard access_time_guard_;
};

}  // namespace

Result<std::unique_ptr<File>> FileSource::open_operand(const std::string& operand) const {
  return open(TRY(name_of(operand)));
}

Result<std::unique_ptr<FileSource>> system_files(const OpenPolicy& policy) {
  if (!policy.root.empty() && !policy.sysroot.empty())
    return fail(ErrorCode::invalid_argument, "--root and --sysroot exclude each other");
  std::optional<Confines> confines;
  if (!policy.root.empty() || !policy.sysroot.empty())
    confines = TRY(Confines::of(policy));
  return std::make_unique<SystemFiles>(std::move(confines), policy);
}

}  // namespace coldchain::io
