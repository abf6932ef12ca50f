// SPDX-License-Identifier: MIT
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

using namespace coldchain;
using testing::TempFolder;
namespace fs = std::filesystem;

namespace {

ErrorCode code_of_opening(const io::OpenPolicy& policy, const std::string& path) {
  const auto file = io::system_files(policy).value()->open(path);
  REQUIRE_FALSE(file);
  return file.error().code;
}

bool opens(const io::OpenPolicy& policy, const std::string& path) {
  return io::system_files(policy).value()->open(path).has_value();
}

io::OpenPolicy rooted(const std::string& root) {
  io::OpenPolicy policy;
  policy.root = root;
  return policy;
}

io::OpenPolicy in_sysroot(const std::string& sysroot) {
  io::OpenPolicy policy;
  policy.sysroot = sysroot;
  return policy;
}

}  // namespace

TEST_CASE("open: refuses a FIFO, a directory, a socket and a character device without blocking") {
  const TempFolder folder;
  ::mkfifo((folder / "fifo").c_str(), 0600);
  CHECK(code_of_opening({}, folder / "fifo") == ErrorCode::invalid_argument);
  CHECK(code_of_opening({}, folder.path()) == ErrorCode::invalid_argument);
  CHECK(code_of_opening({}, "/dev/zero") == ErrorCode::invalid_argument);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (folder / "s").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(code_of_opening({}, folder / "s") == ErrorCode::invalid_argument);
  ::close(fd);
}

TEST_CASE("open: tells a missing file, a bad name and a missing folder") {
  const TempFolder folder;
  CHECK(code_of_opening({}, folder / "none") == ErrorCode::not_found);
  CHECK(code_of_opening({}, "") == ErrorCode::not_found);
  CHECK(code_of_opening({}, std::string("a\0b", 3)) == ErrorCode::invalid_argument);
  CHECK_FALSE(io::system_files(rooted(folder / "none")));
  io::OpenPolicy both = rooted("/");
  both.sysroot = "/";
  CHECK_FALSE(io::system_files(both));
}

TEST_CASE("root: only what lies beneath it is opened, whatever the name looks like") {
  const TempFolder folder;
  fs::create_directories(folder / "in/sub");
  testing::write_file(folder / "in/a", "x");
  testing::write_file(folder / "out", "x");
  fs::create_symlink("../out", folder / "in/escape");
  fs::create_symlink(folder / "out", folder / "in/absolute");
  fs::create_symlink("a", folder / "in/fine");
  const io::OpenPolicy policy = rooted(folder / "in");
  CHECK(opens(policy, folder / "in/a"));
  CHECK(opens(policy, folder / "in/./sub/../a"));
  CHECK(opens(policy, folder / "in/fine"));
  CHECK(code_of_opening(policy, folder / "out") == ErrorCode::refused);
  CHECK(code_of_opening(policy, folder / "in/../out") == ErrorCode::refused);
  CHECK(code_of_opening(policy, folder / "in/escape") == ErrorCode::refused);
  CHECK(code_of_opening(policy, folder / "in/absolute") == ErrorCode::refused);
  CHECK(code_of_opening(policy, folder / "inside") == ErrorCode::refused);
}

TEST_CASE("sysroot: absolute names and absolute symbolic links are read inside it") {
  const TempFolder folder;
  fs::create_directories(folder / "tree/images");
  testing::write_file(folder / "tree/images/a", "inside");
  fs::create_symlink("/images/a", folder / "tree/link");
  const io::OpenPolicy policy = in_sysroot(folder / "tree");
  CHECK(opens(policy, "/images/a"));
  CHECK(opens(policy, "/link"));
  CHECK(opens(policy, "/../../images/a"));
  CHECK(opens(policy, folder / "tree/images/a"));
  CHECK(code_of_opening(policy, "/etc/passwd") == ErrorCode::not_found);
}

TEST_CASE("open: a file without read permission is told as such" *
          doctest::skip(::geteuid() == 0)) {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  ::chmod((folder / "a").c_str(), 0);
  CHECK(code_of_opening({}, folder / "a") == ErrorCode::permission_denied);
}
