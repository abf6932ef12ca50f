// SPDX-License-Identifier: MIT
#include <random>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::edit;

namespace {

Bytes filled(std::size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

// A side file of three phases over an image of ones that grows.
struct Made {
  io::MemoryFile image{filled(4096, 1)};
  io::MemoryFile side{Bytes(), 1};

  Made() {
    Transaction transaction(image);
    transaction.grow(8192);
    REQUIRE(transaction.stage(Phase::fresh, {4096}, filled(4096, 7)).has_value());
    REQUIRE(transaction.stage(Phase::secure, {0}, filled(600, 2)).has_value());
    REQUIRE(transaction.stage(Phase::settle, {500}, filled(100, 3)).has_value());
    REQUIRE(
        Journal::create(side, transaction, image.status().identity, {.verb = "test"}).has_value());
  }
};

}  // namespace

TEST_CASE("Journal: is read as it was written") {
  Made made;
  const auto journal = Journal::open(made.side);
  REQUIRE(journal.has_value());
  CHECK(journal->facts().change.verb == "test");
  CHECK(journal->facts().size_before == 4096);
  CHECK(journal->facts().size_after == 8192);
  CHECK(journal->facts().image == made.image.status().identity);
  CHECK(journal->state() == JournalState::applying);
  CHECK(journal->change_count() == 3);
  CHECK(journal->read_change(1)->phase == Phase::secure);
}

TEST_CASE("Journal: without a state it is incomplete: the image was not touched") {
  Made made;
  CHECK_FALSE(Journal::is_incomplete(made.side).value());
  REQUIRE(made.side.write_at({4096}, filled(24, 0)).has_value());
  CHECK(Journal::is_incomplete(made.side).value());
  const io::MemoryFile empty{Bytes()};
  CHECK(Journal::is_incomplete(empty).value());
}

TEST_CASE("Journal: forward and back, each again, end where they must") {
  Made made;
  const auto journal = Journal::open(made.side);
  for (int round = 0; round < 2; ++round) {
    REQUIRE(roll_forward(*journal, made.image).has_value());
    CHECK(made.image.content().size() == 8192);
    CHECK(made.image.content()[0] == std::byte{2});
    CHECK(made.image.content()[550] == std::byte{3});
    CHECK(made.image.content()[8191] == std::byte{7});
  }
  for (int round = 0; round < 2; ++round) {
    REQUIRE(roll_back(*journal, made.image).has_value());
    CHECK(made.image.content() == filled(4096, 1));
  }
}

TEST_CASE("Journal: where somebody wrote meanwhile, nothing is written") {
  Made made;
  const auto journal = Journal::open(made.side);
  REQUIRE(made.image.write_at({10}, filled(1, 9)).has_value());
  const Bytes before = made.image.content();
  for (const bool is_forward : {true, false}) {
    const Result<void> done =
        is_forward ? roll_forward(*journal, made.image) : roll_back(*journal, made.image);
    REQUIRE_FALSE(done.has_value());
    CHECK(done.error().code == ErrorCode::refused);
    CHECK(made.image.content() == before);
  }
}

TEST_CASE("Journal: an image of another size is somebody else's work") {
  Made made;
  const auto journal = Journal::open(made.side);
  REQUIRE(made.image.resize(16384).has_value());
  CHECK_FALSE(roll_forward(*journal, made.image).has_value());
}

TEST_CASE(
    "Journal: each flipped byte is an error or changes nothing, and never reaches the image") {
  Made made;
  const Bytes sound = made.side.content();
  for (std::size_t at = 0; at < sound.size(); at += at < 8192 ? 1 : 37) {
    CAPTURE(at);
    Bytes bytes = sound;
    bytes[at] ^= std::byte{0x10};
    io::MemoryFile side(bytes, 1);
    const auto journal = Journal::open(side);
    if (!journal)
      continue;
    io::MemoryFile image(filled(4096, 1));
    if (roll_forward(*journal, image).has_value())
      CHECK(image.content()[8191] == std::byte{7});
    else
      CHECK(image.content() == filled(4096, 1));
  }
}

TEST_CASE("Journal: cut anywhere, it is refused") {
  Made made;
  const Bytes sound = made.side.content();
  for (std::size_t size = 0; size < sound.size(); size += 101) {
    CAPTURE(size);
    io::MemoryFile side(Bytes(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(size)), 1);
    CHECK_FALSE(Journal::open(side).has_value());
  }
}
