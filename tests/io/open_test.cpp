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

// The name of an operand, or what is wrong with it.
std::string name_of(const io::OpenPolicy& policy, const std::string& operand) {
  const auto name = io::system_files(policy).value()->name_of(operand);
  return name ? *name : "refused: " + name.error().message;
}

bool opens_operand(const io::OpenPolicy& policy, const std::string& operand) {
  return io::system_files(policy).value()->open_operand(operand).has_value();
}

// The current directory, until this ends.
class Inside {
 public:
  explicit Inside(const std::string& folder) { fs::current_path(folder); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() { fs::current_path(before_); }

 private:
  fs::path before_ = fs::current_path();
};

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

TEST_CASE("root: it is the same one by whatever path it or the current directory was reached") {
  const TempFolder folder;
  fs::create_directories(folder / "disk/images");
  fs::create_symlink("disk", folder / "mnt");
  testing::write_file(folder / "disk/images/a", "x");
  testing::write_file(folder / "out", "x");
  {
    const Inside here(folder / "mnt/images");
    for (const std::string& root : {folder / "mnt", folder / "disk", std::string("..")}) {
      CAPTURE(root);
      const io::OpenPolicy policy = rooted(root);
      CHECK(opens(policy, "a"));
      CHECK(opens(policy, "../images/a"));
      CHECK(code_of_opening(policy, "../../out") == ErrorCode::refused);
      CHECK(opens_operand(policy, folder / "mnt/images/a"));
    }
  }
  const Inside here(folder.path());
  CHECK(opens(rooted("mnt"), folder / "disk/images/a"));
  CHECK(opens(rooted("mnt"), "mnt/images/a"));
  CHECK(opens_operand(rooted("disk"), "mnt/images/a"));
  CHECK(code_of_opening(rooted("mnt"), "out") == ErrorCode::refused);
}

TEST_CASE("sysroot: a name never leads out, be it absolute, relative or a symbolic link") {
  const TempFolder folder;
  fs::create_directories(folder / "tree/images");
  testing::write_file(folder / "out", "outside");
  testing::write_file(folder / "tree/images/a", "inside");
  fs::create_symlink("../../out", folder / "tree/images/relative");
  fs::create_symlink(folder / "out", folder / "tree/images/absolute");
  fs::create_symlink("/images/a", folder / "tree/images/inside");
  const Inside here(folder / "tree/images");
  const io::OpenPolicy policy = in_sysroot(folder / "tree");
  for (const std::string& name :
       {folder / "out", std::string("../../out"), std::string("../out"), std::string("/../out"),
        std::string("/images/relative"), std::string("/images/absolute")}) {
    CAPTURE(name);
    CHECK(code_of_opening(policy, name) == ErrorCode::not_found);
  }
  CHECK(opens(policy, "/images/inside"));
  CHECK(opens(policy, "/images/../../images/a"));
  // Beneath the sysroot on the host, but not inside it.
  CHECK(code_of_opening(policy, folder / "tree/images/a") == ErrorCode::not_found);
}

TEST_CASE("sysroot: an operand beneath it on the host is that file, and has a path inside") {
  const TempFolder folder;
  fs::create_directories(folder / "disk/images/sub");
  fs::create_symlink("disk", folder / "mnt");
  fs::create_symlink("disk/images", folder / "short");
  fs::create_symlink("disk/images/a", folder / "file");
  fs::create_symlink("/images", folder / "disk/link");
  testing::write_file(folder / "disk/images/a", "x");
  testing::write_file(folder / "out", "x");
  const Inside here(folder / "mnt/images");
  for (const std::string& sysroot :
       {folder / "mnt", folder / "disk", folder / "disk/", std::string("..")}) {
    CAPTURE(sysroot);
    const io::OpenPolicy policy = in_sysroot(sysroot);
    for (const std::string& operand :
         {std::string("a"), std::string("./sub/../../images/a"), std::string("../../mnt/images/a"),
          folder / "disk/images/a", folder / "mnt/images/a", folder / "short/a", folder / "file",
          folder / "disk/link/a", folder / "disk/../mnt/images/a", std::string("/images/a")}) {
      CAPTURE(operand);
      CHECK(opens_operand(policy, operand));
    }
    CHECK(name_of(policy, "a") == "/images/a");
    CHECK(name_of(policy, folder / "short/a") == "/images/a");
    CHECK(name_of(policy, "..") == "/");
    CHECK(name_of(policy, "../../out").find("refused: lies outside the sysroot") == 0);
    CHECK(name_of(policy, "../../out").find(sysroot) != std::string::npos);
    // Absolute, and not beneath it: inside.
    CHECK(name_of(policy, folder / "out") == folder / "out");
    CHECK(name_of(policy, folder / "disk/../out") == folder / "disk/../out");
    const auto files = io::system_files(policy).value();
    CHECK(files->name_of(files->operand_of("/images/a")).value() == "/images/a");
    // A name that looks like the path of a file on the host.
    const std::string alike = folder / "disk/images/a";
    CHECK(files->name_of(files->operand_of(alike)).value() == alike);
  }
  CHECK(name_of(in_sysroot("/"), "a") == fs::canonical("a").string());
  CHECK(opens_operand(in_sysroot("/"), "../../../../../../.." + (folder / "out")));
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
  CHECK(opens_operand(policy, folder / "tree/images/a"));
  CHECK(code_of_opening(policy, "/etc/passwd") == ErrorCode::not_found);
}

TEST_CASE("root, sysroot: a name that ends as that of a folder opens no file, as without them") {
  const TempFolder folder;
  fs::create_directories(folder / "d/sub");
  testing::write_file(folder / "d/f", "x");
  testing::write_file(folder / "d/sub/f", "x");
  fs::create_symlink("f", folder / "d/link");
  const std::string root = folder / "d";
  const Inside here(root);
  for (const io::OpenPolicy& policy : {io::OpenPolicy{}, rooted(root), in_sysroot(root)}) {
    CAPTURE(policy.root);
    CAPTURE(policy.sysroot);
    for (const char* end : {"/", "/.", "//", "/./", "/./."}) {
      for (const std::string& name : {root + "/f", root + "/link", root + "/sub/f"}) {
        CAPTURE(name + end);
        CHECK(opens_operand(policy, name));
        const auto file = io::system_files(policy).value()->open_operand(name + end);
        REQUIRE_FALSE(file);
        CHECK(file.error().message == "Not a directory");
      }
      if (policy.sysroot.empty())
        CHECK_FALSE(opens(policy, std::string("sub/f") + end));
      CHECK_FALSE(opens(policy, std::string("/f") + end));
      CHECK(io::system_files(policy).value()->real_folder("sub" + std::string(end)).value() ==
            root + "/sub");
    }
  }
}

TEST_CASE("open: a file without read permission is told as such" *
          doctest::skip(::geteuid() == 0)) {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  ::chmod((folder / "a").c_str(), 0);
  CHECK(code_of_opening({}, folder / "a") == ErrorCode::permission_denied);
}
