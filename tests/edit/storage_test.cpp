// SPDX-License-Identifier: MIT
#include "temp_folder.hpp"
#include "writable.hpp"

#include <filesystem>

#include <coldchain/edit/storage.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::read_file;
using testing::TempFolder;

namespace {

struct Image {
  TempFolder folder;
  std::unique_ptr<io::WritableFile> image;

  Image() {
    testing::write_file(folder / "a", std::string(1 << 20, 'x'));
    image = testing::open_for_writing(folder / "a");
  }
  io::WritableFile& file() { return *image; }
  [[nodiscard]] std::string bytes() const { return read_file(folder / "a"); }
};

}  // namespace

TEST_CASE("storage: a file becomes as long as its places, and what it held stays") {
  for (const bool writes_zeros : {false, true}) {
    Image image;
    const std::vector<HostRange> places = {{{0}, {4096}}, {{2 << 20}, {3 << 20}}};
    REQUIRE(edit::give_storage(image.file(), places, writes_zeros, nullptr).has_value());
    CHECK((image.bytes() == std::string(1 << 20, 'x') + std::string(2 << 20, '\0')));
    // What is only reserved, some systems tell from data and some do not.
    CHECK((!writes_zeros || !io::data_ranges(image.file(), places[1]).value().empty()));
  }
}

TEST_CASE("storage: zeros that are there already count as found") {
  Image image;
  const std::vector<HostRange> places = {{{0}, {4 << 20}}};
  for (const std::uint64_t found : {std::uint64_t{1} << 20, std::uint64_t{4} << 20}) {
    ProgressPoint last;
    const Progress progress = [&](const ProgressPoint& point) {
      last = point;
      return true;
    };
    REQUIRE(edit::give_storage(image.file(), places, true, progress).has_value());
    CHECK(last.done == 4 << 20);
    CHECK(last.found == found);
  }
}

TEST_CASE("storage: who asks for it can stop it") {
  Image image;
  int calls = 0;
  ProgressPoint last;
  const Result<void> done = edit::give_storage(image.file(), {{{1 << 20}, {200 << 20}}}, false,
                                               [&](const ProgressPoint& point) {
                                                 ++calls;
                                                 last = point;
                                                 return false;
                                               });
  CHECK(calls == 2);  // where it begins, and where it can stop
  CHECK(last.done == 64 << 20);
  CHECK(last.total == 199 << 20);
  REQUIRE_FALSE(done);
  CHECK(done.error().code == ErrorCode::interrupted);
  CHECK((image.bytes().substr(0, 1 << 20) == std::string(1 << 20, 'x')));
}

TEST_CASE("storage: what is given back is not used any more, and the rest stays") {
  Image image;
  REQUIRE(edit::give_back(image.file(), {{{65536}, {131072}}}, 262144).has_value());
  const std::string bytes = image.bytes();
  CHECK(bytes.size() == 262144);
  CHECK((bytes.substr(0, 65536) == std::string(65536, 'x')));
  CHECK((bytes.substr(131072) == std::string(131072, 'x')));
  REQUIRE(edit::give_back(image.file(), {}, 1 << 20).has_value());
  CHECK(image.bytes().size() == 262144);
}
