// SPDX-License-Identifier: MIT
#include <coldchain/io/memory_file.hpp>
#include <coldchain/io/window_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::io;

namespace {

std::unique_ptr<MemoryFile> counted(std::size_t size) {
  Bytes content(size);
  for (std::size_t i = 0; i < size; ++i)
    content[i] = static_cast<std::byte>(i / 512);
  return std::make_unique<MemoryFile>(std::move(content), 7);
}

}  // namespace

TEST_CASE("window: it has the bytes of its range, and none before or behind") {
  const WindowFile window(counted(4096), {{1024}, {2048}});
  CHECK(window.size() == 1024);
  CHECK(window.status().identity == MemoryFile({}, 7).status().identity);
  Bytes buffer(2048);
  CHECK(window.read_at({512}, buffer).value() == 512);
  CHECK(buffer[0] == std::byte{3});
  CHECK(window.read_at({1024}, buffer).value() == 0);
  CHECK(window.read_at({~0ULL}, buffer).value() == 0);
  CHECK(window.next_data({100}).value() == HostOffset{100});
  CHECK(window.next_hole({100}).value() == HostOffset{1024});
  CHECK(window.next_data({5000}).value() == HostOffset{1024});
}

TEST_CASE("window: it must lie within the file, in whole sectors") {
  const auto file = counted(4096);
  CHECK(range_of({}, *file).value().size() == 4096);
  CHECK(range_of({100}, *file).value().size() == 3996);
  CHECK(range_of({4096, 0}, *file));
  CHECK(range_of({4097}, *file).error().message ==
        "Offset (4097) cannot be greater than size of the containing file (4096)");
  CHECK_FALSE(range_of({3584, 1024}, *file));
  CHECK_FALSE(range_of({512, ~0ULL}, *file));
  CHECK(range_of({0, 1000}, *file).error().message == "Specified size is not multiple of 512");
}

TEST_CASE("window: nothing opens it for writing or finds a place for its journal") {
  const WindowFile window(counted(4096), {{1024}, {2048}});
  CHECK_FALSE(window.open_for_writing());
  CHECK_FALSE(window.location());
}
