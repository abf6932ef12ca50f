// SPDX-License-Identifier: MIT
#include "temp_folder.hpp"
#include "writable.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

using namespace coldchain;
using testing::TempFolder;

namespace {

constexpr std::size_t large_size = 1 << 20;
alignas(io::WritableFile::direct_alignment) std::array<std::byte, large_size> large{};

// Whether the page cache has nothing of a file that begins with `large`.
bool is_out_of_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  void* const mapped = ::mmap(nullptr, large_size, PROT_READ, MAP_SHARED, fd, 0);
  std::vector<unsigned char> resident(large_size / static_cast<std::size_t>(::getpagesize()));
  const bool is_known = ::mincore(mapped, large_size, resident.data()) == 0;
  ::munmap(mapped, large_size);
  ::close(fd);
  return is_known && std::none_of(resident.begin(), resident.end(),
                                  [](unsigned char page) { return (page & 1) != 0; });
}

// Whether the system can write past the page cache there.
bool can_be_direct(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  const bool is_written = fd >= 0 && ::write(fd, large.data(), large_size) == large_size;
  ::close(fd);
  return is_written && is_out_of_cache(path);
}

}  // namespace

TEST_CASE("posix file: its facts are those of stat") {
  const TempFolder folder;
  testing::write_file(folder / "a", std::string(1000, 'x'));
  ::chmod((folder / "a").c_str(), 0640);
  const auto files = io::system_files({}).value();
  const auto file = files->open(folder / "a").value();
  struct stat facts = {};
  ::stat((folder / "a").c_str(), &facts);
  CHECK(file->size() == 1000);
  CHECK(file->status().kind == io::FileKind::regular);
  CHECK(file->status().allocated == static_cast<std::uint64_t>(facts.st_blocks) * 512);
  CHECK(file->status().mode == 0640);
  CHECK(file->status().identity.inode == facts.st_ino);
  CHECK(file->status().modified.seconds == facts.st_mtim.tv_sec);
}

TEST_CASE("posix file: two names of one file have one identity") {
  const TempFolder folder;
  testing::write_file(folder / "a", "x");
  std::filesystem::create_symlink("a", folder / "link");
  std::filesystem::create_hard_link(folder / "a", folder / "hard");
  const auto files = io::system_files({}).value();
  const auto identity = files->open(folder / "a").value()->status().identity;
  CHECK(files->open(folder / "link").value()->status().identity == identity);
  CHECK(files->open(folder / "hard").value()->status().identity == identity);
}

TEST_CASE("posix file: reading leaves the access time alone for the owner") {
  const TempFolder folder;
  testing::write_file(folder / "a", std::string(4096, 'x'));
  const timespec old[2] = {{1000, 0}, {2000, 0}};
  ::utimensat(AT_FDCWD, (folder / "a").c_str(), old, 0);
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  Bytes buffer(4096);
  REQUIRE(file->read_at({0}, buffer).value() == 4096);
  struct stat facts = {};
  ::stat((folder / "a").c_str(), &facts);
  CHECK(facts.st_atim.tv_sec == 1000);
}

TEST_CASE("posix file: data_ranges finds the data between holes") {
  const TempFolder folder;
  testing::write_file(folder / "a", "");
  std::filesystem::resize_file(folder / "a", 8 << 20);
  std::fstream out(folder / "a", std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(4 << 20);
  out << std::string(65536, 'x');
  out.close();
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  const auto ranges = io::data_ranges(*file, {{0}, {8 << 20}}).value();
  REQUIRE(ranges.size() == 1);
  CHECK(ranges[0].begin.value == 4 << 20);
  CHECK(ranges[0].size() == 65536);
}

TEST_CASE("posix file: reading past the end of any file system's reach yields nothing") {
  const TempFolder folder;
  testing::write_file(folder / "a", "xyz");
  const auto file = io::system_files({}).value()->open(folder / "a").value();
  Bytes buffer(16);
  CHECK(file->read_at({~0ULL - 4}, buffer).value() == 0);
  CHECK(file->read_at({1ULL << 62}, buffer).value() == 0);
  CHECK(file->read_at({1}, buffer).value() == 2);
}

namespace {

// 1 MiB of data at 2 MiB, in a file of 8 MiB.
void write_sparse(const std::string& path) {
  testing::write_file(path, "");
  std::filesystem::resize_file(path, 8 << 20);
  std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(2 << 20);
  out << std::string(1 << 20, 'x');
}

}  // namespace

TEST_CASE("posix file: what is reserved has storage, and holds what it held") {
  const TempFolder folder;
  write_sparse(folder / "a");
  const std::string before = testing::read_file(folder / "a");
  const auto target = testing::open_for_writing(folder / "a");
  io::WritableFile& file = *target;
  CHECK(file.bytes_without_storage({{0}, {8 << 20}}).value() == 7 << 20);
  CHECK(file.bytes_without_storage({{2 << 20}, {3 << 20}}).value() == 0);
  CHECK(file.bytes_without_storage({{8 << 20}, {9 << 20}}).value() == 1 << 20);
  REQUIRE(file.reserve({{0}, {4 << 20}}).has_value());
  REQUIRE(file.refresh().has_value());
  CHECK(file.status().allocated >= 4 << 20);
  CHECK(file.status().allocated < 8 << 20);
  CHECK(file.size() == 8 << 20);
  CHECK((testing::read_file(folder / "a") == before));
}

TEST_CASE("posix file: filling holes writes zeros there, and nothing else") {
  const TempFolder folder;
  write_sparse(folder / "a");
  const std::string before = testing::read_file(folder / "a");
  const auto target = testing::open_for_writing(folder / "a");
  REQUIRE(io::fill_holes(*target, {{1 << 20}, {100 << 20}}).has_value());
  CHECK((testing::read_file(folder / "a") == before));
  const std::vector<HostRange> data = io::data_ranges(*target, {{0}, {8 << 20}}).value();
  REQUIRE(data.size() == 1);
  CHECK(data.front().begin.value == 1 << 20);
  CHECK(data.front().end.value == 8 << 20);
}

TEST_CASE("posix file: with steady holes reserved extents are holes, whatever the page cache has") {
  const TempFolder folder;
  const std::string path = folder / "a";
  testing::write_file(path, "");
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct statfs system = {};
  ::fstatfs(fd, &system);
  const bool is_reserved = ::fallocate(fd, 0, 0, 1 << 20) == 0;
  if (!is_reserved || system.f_type == TMPFS_MAGIC) {
    MESSAGE("skipped: nothing can be reserved here, or nobody tells");
    ::close(fd);
    return;
  }
  io::OpenPolicy policy;
  policy.steady_holes = true;
  const auto file = io::system_files(policy).value()->open(path).value();
  // After it was opened, and not on the storage yet.
  REQUIRE(::pwrite(fd, large.data(), 4096, 512 << 10) == 4096);
  REQUIRE(::pread(fd, large.data(), large_size, 0) == large_size);
  ::close(fd);
  CHECK(file->next_hole({0}).value().value == 0);
  CHECK(file->next_data({0}).value().value == 512 << 10);
  CHECK(file->next_data({(512 << 10) + 100}).value().value == (512 << 10) + 100);
  CHECK(file->next_hole({512 << 10}).value().value == (512 << 10) + 4096);
  CHECK(file->next_data({(512 << 10) + 4096}).value().value == 1 << 20);
  CHECK(file->next_hole({1 << 20}).value().value == 1 << 20);
}

TEST_CASE("posix file: large data goes past the page cache, where the system can do that") {
  const TempFolder folder;
  testing::write_file(folder / "a", "");
  const auto target = testing::open_for_writing(folder / "a");
  REQUIRE(target->write_at({0}, large).has_value());
  CHECK(is_out_of_cache(folder / "a") == can_be_direct(folder / "b"));
}

TEST_CASE("posix file: what is written past the page cache is read all the same, and lies there") {
  const TempFolder folder;
  testing::write_file(folder / "a", std::string(100, 'x'));
  const auto target = testing::open_for_writing(folder / "a");
  io::WritableFile* const file = target.get();
  Bytes expected(3 << 20);
  std::copy_n(text_bytes(std::string(100, 'x')).begin(), 100, expected.begin());
  REQUIRE(file->resize(expected.size()).has_value());
  Bytes read(expected.size());
  int value = 0;
  // Aligned, and what is not, in the file or in memory; one over the other; up to the end.
  for (const auto& [at, from, size] :
       std::vector<std::array<std::size_t, 3>>{{0, 0, 1 << 20},
                                               {4096, 0, 512 << 10},
                                               {1 << 20, 512, 600 << 10},
                                               {512, 0, 900 << 10},
                                               {(1 << 20) + 4096, 4096, 300 << 10},
                                               {2 << 20, 0, 1 << 20}}) {
    const std::size_t offset = at;
    CAPTURE(offset);
    large.fill(static_cast<std::byte>(++value));
    const ByteView bytes = ByteView(large).subspan(from, size);
    REQUIRE(file->write_at({offset}, bytes).has_value());
    std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
    REQUIRE(file->read_at({0}, read).value() == expected.size());
    CHECK((read == expected));
  }
  // Also where that makes the file longer.
  REQUIRE(file->write_at({3 << 20}, large).has_value());
  CHECK(file->size() == 4 << 20);
  CHECK(std::filesystem::file_size(folder / "a") == 4 << 20);
}
