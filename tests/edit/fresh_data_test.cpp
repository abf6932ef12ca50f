// SPDX-License-Identifier: MIT
#include "crash_log.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <coldchain/edit/fresh_data.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using edit::FreshWriter;
using edit::Journal;

namespace {

Bytes filled(std::size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

// An image in memory whose first clusters are in use, and the side file of a change of it.
class Scene {
 public:
  Scene() : image(filled(65536, 1)), journal(make_journal()) {}

  // One piece of `size` bytes that is the `value`-th of the operation.
  [[nodiscard]] static Result<void> write(FreshWriter& writer, int value, HostOffset at,
                                          std::uint64_t size) {
    if (const Result<void> begun = writer.begin(static_cast<std::uint64_t>(value)); !begun)
      return begun;
    const auto fill = [value](std::uint64_t, ByteSpan bytes) -> Result<void> {
      std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(value));
      return {};
    };
    if (const Result<void> done = writer.write(at, size, fill); !done)
      return done;
    return writer.end();
  }

  [[nodiscard]] Bytes at(std::size_t offset, std::size_t size) const {
    const auto begin = image.content().begin() + static_cast<std::ptrdiff_t>(offset);
    return Bytes(begin, begin + static_cast<std::ptrdiff_t>(size));
  }

  std::vector<HostRange> ranges = {{{4096}, {16384}}, {{32768}, {65536}}};
  io::MemoryFile image;
  io::MemoryFile side_file{Bytes{}};
  Journal journal;

 private:
  Journal make_journal() {
    const edit::Transaction nothing(image);
    return Journal::create(side_file, nothing, {}, {.verb = "pull"}).value();
  }
};

}  // namespace

TEST_CASE("FreshWriter: what is not fresh is not written to") {
  Scene scene;
  FreshWriter writer(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  CHECK_FALSE(Scene::write(writer, 2, {0}, 512).has_value());
  CHECK_FALSE(Scene::write(writer, 2, {12288}, 8192).has_value());
  CHECK_FALSE(Scene::write(writer, 2, {61440}, 8192).has_value());
  REQUIRE(writer.flush().has_value());
  CHECK(scene.image.content() == filled(65536, 1));
}

TEST_CASE("FreshWriter: pieces that follow each other and such that do not all reach their place") {
  Scene scene;
  FreshWriter writer(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  REQUIRE(Scene::write(writer, 2, {4096}, 4096).has_value());
  REQUIRE(Scene::write(writer, 3, {8192}, 4096).has_value());
  REQUIRE(Scene::write(writer, 4, {32768}, 512).has_value());
  REQUIRE(writer.flush().has_value());
  CHECK(scene.at(4096, 4096) == filled(4096, 2));
  CHECK(scene.at(8192, 4096) == filled(4096, 3));
  CHECK(scene.at(12288, 4096) == filled(4096, 1));
  CHECK(scene.at(32768, 512) == filled(512, 4));
  CHECK(scene.journal.cursor() == 4);
}

TEST_CASE(
    "FreshWriter: pieces here and there are written where they belong, those in a row at once") {
  Scene scene;
  testing::CrashLog log;
  testing::CrashFile image(scene.image.content(), 0, log);
  FreshWriter writer(image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  Bytes expected = image.content();
  const auto write = [&](int value, std::size_t at) {
    REQUIRE(Scene::write(writer, value, {at}, 512).has_value());
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(at), 512,
                static_cast<std::byte>(value));
  };
  // Every other one of the second range backwards, and in between the first range forwards.
  for (int i = 0; i < 24; ++i) {
    write(2 + 2 * i, 65536 - 1024 * (static_cast<std::size_t>(i) + 1));
    write(3 + 2 * i, 4096 + 512 * static_cast<std::size_t>(i));
  }
  REQUIRE(writer.flush().has_value());
  CHECK(image.content() == expected);
  CHECK(scene.journal.cursor() == 49);
  const auto writes = std::count_if(log.begin(), log.end(), [](const testing::CrashStep& step) {
    return step.kind == testing::CrashStep::Kind::write;
  });
  CHECK(writes == 24 + 1);
}

TEST_CASE("FreshWriter: of what was written before, only what others have changed is written") {
  Scene scene;
  {
    FreshWriter writer(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::write);
    REQUIRE(Scene::write(writer, 2, {4096}, 4096).has_value());
    REQUIRE(Scene::write(writer, 3, {32768}, 4096).has_value());
    REQUIRE(writer.flush().has_value());
  }
  REQUIRE(scene.image.write_at({32768}, filled(512, 9)).has_value());
  FreshWriter writer(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  REQUIRE(Scene::write(writer, 2, {4096}, 4096).has_value());
  CHECK(scene.journal.cursor() == 3);
  REQUIRE(Scene::write(writer, 3, {32768}, 4096).has_value());
  REQUIRE(Scene::write(writer, 4, {40960}, 4096).has_value());
  REQUIRE(writer.flush().has_value());
  CHECK(scene.at(4096, 4096) == filled(4096, 2));
  CHECK(scene.at(32768, 4096) == filled(4096, 3));
  CHECK(scene.at(40960, 4096) == filled(4096, 4));
  CHECK(scene.journal.cursor() == 4);
}

TEST_CASE("FreshWriter: zeros are written over what others left, wherever that is") {
  Scene scene;
  FreshWriter writer(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  REQUIRE(writer.begin(2).has_value());
  REQUIRE(writer.write_zeros({4096}, 4096).has_value());
  REQUIRE(writer.flush().has_value());
  CHECK(scene.at(4096, 4096) == filled(4096, 0));
}

TEST_CASE("FreshWriter: a check writes nothing, and fails where something else is") {
  Scene scene;
  for (const bool is_changed : {false, true}) {
    const Bytes before = scene.image.content();
    FreshWriter checker(scene.image, scene.journal, scene.ranges, FreshWriter::Mode::check);
    const Result<void> begun = Scene::write(checker, is_changed ? 2 : 1, {4096}, 4096);
    CHECK(begun.has_value());
    CHECK(checker.flush().has_value() != is_changed);
    CHECK(scene.image.content() == before);
  }
}

TEST_CASE("FreshWriter: pieces are read while those before them are written") {
  constexpr std::uint64_t size = 20 << 20;
  Scene scene;
  scene.ranges = {{{0}, {3 * size}}};
  const testing::TempFolder folder;
  testing::write_file(folder / "image", "");
  const auto files = io::system_files({}).value();
  const auto target = testing::open_for_writing(folder / "image");
  const auto seen = files->open(folder / "image").value();
  FreshWriter writer(*target, scene.journal, scene.ranges, FreshWriter::Mode::write);
  bool was_there = false;
  bool is_elsewhere = false;
  const std::thread::id here = std::this_thread::get_id();
  const auto fill = [](std::uint64_t, ByteSpan bytes) -> Result<void> {
    std::fill(bytes.begin(), bytes.end(), std::byte{1});
    return {};
  };
  const auto wait_for_first = [&](std::uint64_t, ByteSpan bytes) -> Result<void> {
    Bytes first(1);
    for (int i = 0; i < 10000 && first.front() == std::byte{0}; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (const auto read = seen->read_at({0}, first); !read)
        return fail(read.error());
    }
    was_there = was_there || first.front() == std::byte{1};
    is_elsewhere = std::this_thread::get_id() != here;
    return fill(0, bytes);
  };
  REQUIRE(writer.begin(1).has_value());
  REQUIRE(writer.write({0}, size, fill).has_value());
  REQUIRE(writer.write({size}, size, wait_for_first).has_value());
  REQUIRE(writer.write({2 * size}, size, fill).has_value());
  REQUIRE(writer.flush().has_value());
  CHECK(was_there);
  CHECK(is_elsewhere);
  CHECK((testing::read_file(folder / "image") == std::string(3 * size, '\1')));
}

TEST_CASE(
    "FreshWriter: what can go past the page cache does so, whatever odd place was before it") {
  constexpr std::uint64_t size = 48 << 20;
  Scene scene;
  scene.ranges = {{{0}, {512}}, {{1 << 20}, {(1 << 20) + size}}};
  testing::CrashLog log;
  testing::CrashFile image(Bytes{}, 0, log);
  FreshWriter writer(image, scene.journal, scene.ranges, FreshWriter::Mode::write);
  REQUIRE(Scene::write(writer, 1, {0}, 512).has_value());
  REQUIRE(Scene::write(writer, 2, {1 << 20}, size).has_value());
  REQUIRE(writer.flush().has_value());
  for (const testing::CrashStep& step : log) {
    if (step.kind == testing::CrashStep::Kind::write && step.offset != 0)
      CHECK((step.offset | step.bytes.size()) % io::WritableFile::direct_alignment == 0);
  }
}
