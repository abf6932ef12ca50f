// SPDX-License-Identifier: MIT
#include "temp_folder.hpp"

#include <coldchain/io/lock.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

using namespace coldchain;
using testing::TempFolder;

namespace {

// Holds a byte as QEMU does: a read lock of its own open file description.
class HeldByte {
 public:
  HeldByte(const std::string& path, off_t byte) : fd_(::open(path.c_str(), O_RDWR)) {
    struct flock lock = {};
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    REQUIRE(::fcntl(fd_, F_OFD_SETLK, &lock) == 0);
  }
  HeldByte(const HeldByte&) = delete;
  HeldByte& operator=(const HeldByte&) = delete;
  ~HeldByte() { ::close(fd_); }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("test_locks: a writer is in the way of a format with metadata, not of a raw image") {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  CHECK(io::test_locks(*file, io::LockNeed::read));
  {
    const HeldByte write(folder / "a", 101);
    const auto outcome = io::test_locks(*file, io::LockNeed::read);
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == ErrorCode::locked);
    CHECK(outcome.error().message == "Failed to get shared \"write\" lock");
    CHECK(io::test_locks(*file, io::LockNeed::read_raw));
  }
  {
    const HeldByte resize(folder / "a", 103);
    CHECK_FALSE(io::test_locks(*file, io::LockNeed::read));
  }
  CHECK(io::test_locks(*file, io::LockNeed::read));
}

TEST_CASE("test_locks: whoever does not share reading is in everybody's way") {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  const HeldByte unshared(folder / "a", 200);
  CHECK_FALSE(io::test_locks(*file, io::LockNeed::read_raw));
  CHECK_FALSE(io::test_locks(*file, io::LockNeed::read));
}

TEST_CASE("test_locks: another reader is in the way of writers alone") {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  const HeldByte reads(folder / "a", 100);
  const HeldByte unshared_write(folder / "a", 201);
  CHECK(io::test_locks(*file, io::LockNeed::read));
  CHECK_FALSE(io::test_locks(*file, io::LockNeed::write));
}
