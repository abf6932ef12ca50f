// SPDX-License-Identifier: MIT
#include <coldchain/io/memory_file.hpp>
#include <coldchain/raw/image.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("raw image: QEMU's size is rounded to sectors, libvirt's is exact, the tail is zero") {
  const io::MemoryFile file(Bytes(1000, std::byte{7}));
  const auto image = raw::Image::open(file, {}).value();
  CHECK(image.guest_size() == 1024);
  CHECK(image.exact_size() == 1000);
  Bytes buffer(32, std::byte{1});
  REQUIRE(image.read({992}, buffer));
  CHECK(buffer[7] == std::byte{7});
  CHECK(buffer[8] == std::byte{0});
  CHECK(buffer[31] == std::byte{0});
}

TEST_CASE("raw image: a window shows its bytes only and must lie within the file") {
  Bytes content(2048, std::byte{1});
  content[1024] = std::byte{2};
  const io::MemoryFile file(content);
  const auto image = raw::Image::open(file, {1024, 512}).value();
  CHECK(image.guest_size() == 512);
  Bytes buffer(1);
  REQUIRE(image.read({0}, buffer));
  CHECK(buffer[0] == std::byte{2});
  CHECK(raw::Image::open(file, {2048, 0}));
  CHECK_FALSE(raw::Image::open(file, {2049}));
  CHECK_FALSE(raw::Image::open(file, {1024, 1536}));
  CHECK_FALSE(raw::Image::open(file, {~0ULL, 512}));
  CHECK_FALSE(raw::Image::open(file, {0, 1000}));
}
