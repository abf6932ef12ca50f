// SPDX-License-Identifier: MIT
// What becomes of a change after it was interrupted or done: resume and undo.
#include "interrupted.hpp"

#include <coldchain/edit/resume.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::edit;
using testing::exists;
using testing::FaultyFile;
using testing::find_nothing;
using testing::never;
using testing::new_content;
using testing::old_content;
using testing::read_file;
using testing::Scene;

TEST_CASE("resume: what had not begun is removed; nothing pending is no error") {
  const Scene change;
  CHECK(change.resume(false)->resumed == Resumed::nothing_pending);
  testing::write_file(change.pending(), std::string());
  REQUIRE(::chmod(change.pending().c_str(), 0600) == 0);
  CHECK(change.resume(false)->resumed == Resumed::nothing_changed);
  CHECK_FALSE(exists(change.pending()));
}

TEST_CASE("resume: a change that is done only gets its name, whatever was written since") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  REQUIRE(::rename(change.undo_file().c_str(), change.pending().c_str()) == 0);
  const std::string later(8192, 'l');
  testing::write_file(change.path(), later);
  CHECK_FALSE(change.resume(true).has_value());
  CHECK(change.resume(false)->resumed == Resumed::finished);
  CHECK(exists(change.undo_file()));
  CHECK((read_file(change.path()) == later));
}

TEST_CASE("resume: keeps an undo file where the change would have, and nowhere else") {
  const Scene without;
  without.interrupt({.verb = "test", .keeps_undo = false});
  CHECK_FALSE(without.resume(false)->undo_file.has_value());
  CHECK_FALSE(exists(without.pending()));
  CHECK_FALSE(exists(without.undo_file()));

  Scene elsewhere;
  const std::string folder = elsewhere.folder() / "kept";
  REQUIRE(::mkdir(folder.c_str(), 0700) == 0);
  elsewhere.interrupt({.verb = "test"});
  elsewhere.keep_in(folder);
  CHECK(elsewhere.resume(false)->undo_file == folder + "/image.coldchain-undo");
  CHECK(exists(folder + "/image.coldchain-undo"));
  CHECK_FALSE(exists(elsewhere.undo_file()));
}

TEST_CASE("resume: that fails half way says that it has written, and goes on when called again") {
  const Scene change;
  change.interrupt({.verb = "test"});
  {
    auto image = change.open();
    image = std::make_unique<FaultyFile>(std::move(image), 3, never);
    const auto outcome =
        edit::resume(*image, change.side_files(image).value(), false, find_nothing);
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().message.find("keeps what is left to do") != std::string::npos);
    CHECK(outcome.error().message.find("Nothing was written") == std::string::npos);
  }
  CHECK(change.resume(false)->resumed == Resumed::finished);
  CHECK((read_file(change.path()) == new_content));
}

TEST_CASE("resume: a side file that others could have written is not believed") {
  const Scene change;
  change.interrupt({.verb = "test"});
  REQUIRE(::chmod(change.pending().c_str(), 0666) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::permission_denied);
  REQUIRE(::chmod(change.pending().c_str(), 0600) == 0);
  const std::string second_name = change.folder() / "second";
  REQUIRE(::link(change.pending().c_str(), second_name.c_str()) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::permission_denied);
  REQUIRE(::unlink(second_name.c_str()) == 0);
  const std::string elsewhere = change.folder() / "elsewhere";
  REQUIRE(::rename(change.pending().c_str(), elsewhere.c_str()) == 0);
  REQUIRE(::symlink(elsewhere.c_str(), change.pending().c_str()) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::refused);
}

TEST_CASE("undo: refuses where the image was modified since, and where another change is pending") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  // A second change, which is not finished.
  {
    auto image = change.open();
    Transaction transaction(*image);
    REQUIRE(transaction.stage(Phase::link, {0}, Bytes(512, std::byte{'x'})).has_value());
    const SideFiles side_files = change.side_files(image).value();
    image = std::make_unique<FaultyFile>(std::move(image), 1, never);
    REQUIRE_FALSE(edit::commit(transaction, *image, side_files, {.verb = "test"}).has_value());
  }
  CHECK(change.undo().error().code == ErrorCode::refused);
  CHECK((read_file(change.path()) == new_content));
  const Scene other;
  {
    auto image = other.open();
    REQUIRE(other.commit(image, {.verb = "test"}).has_value());
  }
  const timespec times[2] = {{1, 0}, {1, 0}};
  REQUIRE(::utimensat(AT_FDCWD, other.path().c_str(), times, 0) == 0);
  const Result<void> done = other.undo();
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().message.find("modified since") != std::string::npos);
  CHECK((read_file(other.path()) == new_content));
}

TEST_CASE("undo: an undo file of another image is refused") {
  const Scene change;
  const Scene other;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  REQUIRE(::rename(change.undo_file().c_str(), other.undo_file().c_str()) == 0);
  const Result<void> done = other.undo();
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().message.find("another image") != std::string::npos);
}

TEST_CASE("resume: what has begun to go back is never taken for done or to be finished") {
  // Interrupted between `done` and its name, then abandoned, and stopped at each call of that.
  for (int call = 1; call < 6; ++call) {
    CAPTURE(call);
    const Scene change;
    {
      auto image = change.open();
      REQUIRE(change.commit(image, {.verb = "test"}).has_value());
    }
    REQUIRE(::rename(change.undo_file().c_str(), change.pending().c_str()) == 0);
    {
      auto image = change.open();
      auto faulty = std::make_unique<FaultyFile>(std::move(image), call, never);
      const FaultyFile& file = *faulty;
      image = std::move(faulty);
      const auto done = edit::resume(*image, change.side_files(image).value(), true, find_nothing);
      if (!file.has_failed()) {
        CHECK(done->resumed == Resumed::abandoned);
        CHECK(call > 2);
        break;
      }
      REQUIRE_FALSE(done.has_value());
      CHECK(done.error().message.find("continues the rollback") != std::string::npos);
    }
    const auto again = change.resume(false);
    REQUIRE_MESSAGE(again.has_value(), again.error().message);
    CHECK(again->resumed == Resumed::abandoned);
    CHECK((read_file(change.path()) == old_content));
    CHECK_FALSE(exists(change.pending()));
    CHECK_FALSE(exists(change.undo_file()));
  }
}

TEST_CASE("resume: a rename that was stopped between two names is finished") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  // The second of them, and the first has gone.
  const std::string second_name = change.undo_file() + "-2";
  REQUIRE(::rename(change.undo_file().c_str(), second_name.c_str()) == 0);
  REQUIRE(::link(second_name.c_str(), change.pending().c_str()) == 0);
  CHECK(change.resume(false)->resumed == Resumed::nothing_pending);
  REQUIRE(::rename(second_name.c_str(), change.undo_file().c_str()) == 0);
  CHECK_FALSE(exists(change.pending()));
  CHECK(change.undo().has_value());
}

namespace {

// Stops an undo on the way, after the marker and the state.
void interrupt_undo(const Scene& change, int fails_from) {
  auto image = change.open();
  image = std::make_unique<FaultyFile>(std::move(image), fails_from, never);
  const io::Folder folder = io::Folder::open(change.folder().path()).value();
  const auto file = folder.open_file("image.coldchain-undo").value();
  REQUIRE_FALSE(
      edit::undo(*file, change.undo_file(), *image, change.side_files(image).value(), find_nothing)
          .has_value());
  REQUIRE(exists(change.pending()));
}

}  // namespace

TEST_CASE("undo: one that was interrupted goes on wherever its file is moved to") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  CHECK(change.resume(false).error().message.find("with its undo file, which was") !=
        std::string::npos);
  const std::string elsewhere = change.folder() / "elsewhere";
  REQUIRE(::rename(change.undo_file().c_str(), elsewhere.c_str()) == 0);
  auto image = change.open();
  const auto file = io::Folder::open(change.folder().path())->open_file("elsewhere").value();
  CHECK(edit::undo(*file, elsewhere, *image, change.side_files(image).value(), find_nothing)
            .has_value());
  CHECK((read_file(change.path()) == old_content));
  CHECK_FALSE(exists(change.pending()));
}

TEST_CASE(
    "undo: one that was interrupted goes on with a copy of its file, and else says the way out") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  const std::string bytes = read_file(change.undo_file());
  REQUIRE(::unlink(change.undo_file().c_str()) == 0);
  for (const bool abandon : {false, true}) {
    const std::string told = change.resume(abandon).error().message;
    CHECK(told.find("'mv " + change.pending() + " " + change.path() + ".coldchain-given-up") !=
          std::string::npos);
  }
  testing::write_file(change.undo_file(), bytes);
  REQUIRE(::chmod(change.undo_file().c_str(), 0600) == 0);
  CHECK(change.undo().has_value());
  CHECK((read_file(change.path()) == old_content));
}

TEST_CASE("undo: one that was interrupted goes on with a copy from before it began") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  const std::string bytes = read_file(change.undo_file());
  interrupt_undo(change, 2);
  testing::write_file(change.undo_file(), bytes);
  CHECK(change.undo().has_value());
  CHECK((read_file(change.path()) == old_content));
  CHECK_FALSE(exists(change.pending()));
}

TEST_CASE("undo: of which nothing but the marker is there refuses what was written since") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);  // nothing of the image is written
  {
    // What no record covers.
    auto image = change.open();
    REQUIRE(image->write_at({1024}, Bytes(512, std::byte{'w'})).has_value());
  }
  CHECK(change.undo().error().message.find("modified since") != std::string::npos);
  CHECK((read_file(change.path()).substr(0, 512) == new_content.substr(0, 512)));
}

TEST_CASE("undo: one that was interrupted and given up is not taken up again") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 2);
  REQUIRE(::unlink(change.pending().c_str()) == 0);
  CHECK(change.undo().error().message.find("abandoned") != std::string::npos);
}

TEST_CASE("resume: what is done and was written to since cannot be taken back, but ended") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  REQUIRE(::rename(change.undo_file().c_str(), change.pending().c_str()) == 0);
  testing::write_file(change.path(), std::string(8192, 'l'));
  CHECK(change.resume(true).error().message.find("without --abandon") != std::string::npos);
  CHECK(change.resume(false)->resumed == Resumed::finished);
}

TEST_CASE("undo: of an older change does not take the marker of one under way") {
  const Scene change;
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  REQUIRE(change.undo().has_value());
  const std::string older = change.folder() / "older";
  REQUIRE(::rename(change.undo_file().c_str(), older.c_str()) == 0);
  {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  auto image = change.open();
  const auto file = io::Folder::open(change.folder().path())->open_file("older").value();
  CHECK_FALSE(
      edit::undo(*file, older, *image, change.side_files(image).value(), find_nothing).has_value());
  CHECK(exists(change.pending()));
}
