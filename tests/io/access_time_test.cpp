// SPDX-License-Identifier: MIT
// Access times of files and folders of another user. Only root can make these for a test.
#include "other_user.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <map>
#include <thread>

#include <coldchain/io/folder.hpp>
#include <coldchain/io/open.hpp>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

using namespace coldchain;
using testing::AsOtherUser;
using testing::TempFolder;

namespace {

constexpr time_t long_ago = 1000;

void make_old(const std::string& path) {
  const timespec old[2] = {{long_ago, 0}, {2000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), old, 0) == 0);
}

time_t access_time(const std::string& path) {
  struct stat facts = {};
  REQUIRE(::stat(path.c_str(), &facts) == 0);
  return facts.st_atim.tv_sec;
}

void open_to_all(const std::string& path) {
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
}

// Remembers what it was asked, and answers.
struct Guard {
  std::vector<std::string> asked;
  bool refuses = false;

  io::AccessTimeGuard function() {
    return [this](const std::string& path) -> Result<void> {
      asked.push_back(path);
      return refuses ? fail(ErrorCode::refused, "guarded") : Result<void>{};
    };
  }
};

Result<std::unique_ptr<io::File>> open_guarded(const std::string& path, Guard& guard) {
  io::OpenPolicy policy;
  policy.access_time_guard = guard.function();
  return io::system_files(policy).value()->open(path);
}

}  // namespace

TEST_CASE("access time: the guard is asked about files of others, and not by their owner") {
  if (!testing::is_root())
    return;
  const TempFolder folder;
  open_to_all(folder.path());
  testing::write_file(folder / "a", std::string(4096, 'x'));
  open_to_all(folder / "a");
  Guard guard;
  CHECK(open_guarded(folder / "a", guard));
  CHECK(guard.asked.empty());
  const AsOtherUser other;
  CHECK(open_guarded(folder / "a", guard));
  CHECK(guard.asked == std::vector<std::string>{folder / "a"});
}

TEST_CASE("access time: a file that the guard refuses is not read") {
  if (!testing::is_root())
    return;
  const TempFolder folder;
  open_to_all(folder.path());
  testing::write_file(folder / "a", std::string(4096, 'x'));
  open_to_all(folder / "a");
  make_old(folder / "a");
  Guard guard{.asked = {}, .refuses = true};
  const AsOtherUser other;
  const auto refused = open_guarded(folder / "a", guard);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message == "guarded");
  CHECK(access_time(folder / "a") == long_ago);
}

TEST_CASE("access time: the guard is not asked about a file that the caller may not read at all") {
  if (!testing::is_root())
    return;
  const TempFolder folder;
  open_to_all(folder.path());
  testing::write_file(folder / "a", "x");
  REQUIRE(::chmod((folder / "a").c_str(), 0600) == 0);
  Guard guard;
  const AsOtherUser other;
  const auto refused = open_guarded(folder / "a", guard);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::permission_denied);
  CHECK(guard.asked.empty());
}

TEST_CASE("access time: listing a folder leaves it alone for the owner, and asks for others") {
  if (!testing::is_root())
    return;
  const TempFolder folder;
  open_to_all(folder.path());
  testing::write_file(folder / "a", "x");
  make_old(folder.path());
  Guard guard;
  const auto opened = io::Folder::open(folder.path(), guard.function()).value();
  CHECK(opened.names().value() == std::vector<std::string>{"a"});
  CHECK(access_time(folder.path()) == long_ago);
  CHECK(guard.asked.empty());
  guard.refuses = true;
  const AsOtherUser other;
  CHECK_FALSE(opened.names());
  CHECK(guard.asked == std::vector<std::string>{folder.path()});
  CHECK(access_time(folder.path()) == long_ago);
}

TEST_CASE("access time: on a file system without access times the guard is not asked") {
  if (!testing::is_root())
    return;
  const TempFolder folder;
  open_to_all(folder.path());
  for (const unsigned long flag : {1UL * MS_NOATIME, 1UL * MS_RDONLY}) {
    // The mount is of this thread alone, and ends with it.
    std::thread([&] {
      if (::unshare(CLONE_NEWNS | CLONE_FS) != 0 ||
          ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          ::mount("none", folder.path().c_str(), "tmpfs", 0, "mode=755") != 0) {
        MESSAGE("skipped: nothing can be mounted here");
        return;
      }
      testing::write_file(folder / "a", "x");
      open_to_all(folder / "a");
      Guard guard;
      {
        const AsOtherUser other;
        CHECK(open_guarded(folder / "a", guard));
      }
      CHECK(guard.asked.size() == 1);
      CHECK(::mount("none", folder.path().c_str(), nullptr, MS_REMOUNT | flag, nullptr) == 0);
      const AsOtherUser other;
      CHECK(open_guarded(folder / "a", guard));
      CHECK(guard.asked.size() == 1);
    }).join();
  }
}

TEST_CASE("folder: an entry is listed with its kind") {
  const TempFolder folder;
  testing::write_file(folder / "file", "x");
  std::filesystem::create_directory(folder / "folder");
  std::filesystem::create_symlink("file", folder / "link");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  using Kind = io::FolderEntry::Kind;
  std::map<std::string, Kind> kinds;
  REQUIRE(io::Folder::open(folder.path())->for_each_entry([&](const io::FolderEntry& entry) {
    kinds[entry.name] = entry.kind;
  }));
  CHECK(kinds == std::map<std::string, Kind>{{"file", Kind::regular},
                                             {"folder", Kind::folder},
                                             {"link", Kind::symbolic_link},
                                             {"fifo", Kind::other}});
}
