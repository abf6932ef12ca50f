// SPDX-License-Identifier: MIT
#include "interrupted.hpp"

#include <coldchain/edit/commit.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::edit;
using testing::exists;
using testing::FaultyFile;
using testing::never;
using testing::new_content;
using testing::old_content;
using testing::read_file;
using testing::Scene;

TEST_CASE(
    "commit: changes the image, keeps an undo file that only its owner reads, and undo undoes") {
  const Scene change;
  auto image = change.open();
  const auto kept = change.commit(image, {.verb = "test"});
  REQUIRE(kept.has_value());
  CHECK(*kept == change.undo_file());
  CHECK((read_file(change.path()) == new_content));
  CHECK_FALSE(exists(change.pending()));
  struct stat facts = {};
  REQUIRE(::stat(change.undo_file().c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777U) == 0600);
  REQUIRE(change.undo().has_value());
  CHECK((read_file(change.path()) == old_content));
  CHECK_FALSE(exists(change.pending()));
  const Result<void> again = change.undo();
  REQUIRE_FALSE(again.has_value());
  CHECK(again.error().message.find("undone already") != std::string::npos);
}

TEST_CASE("commit: without an undo file nothing is left beside the image") {
  const Scene change;
  auto image = change.open();
  const auto kept = change.commit(image, {.verb = "test", .keeps_undo = false});
  REQUIRE(kept.has_value());
  CHECK_FALSE(kept->has_value());
  CHECK_FALSE(exists(change.pending()));
  CHECK_FALSE(exists(change.undo_file()));
}

TEST_CASE("commit: undo files of one image do not replace each other") {
  const Scene change;
  testing::write_file(change.undo_file(), std::string("of another change"));
  auto image = change.open();
  const auto kept = change.commit(image, {.verb = "test"});
  REQUIRE(kept.has_value());
  CHECK(*kept == change.undo_file() + "-2");
}

TEST_CASE("commit: whichever call fails once, the image is as it was or can be finished") {
  for (int call = 1;; ++call) {
    CAPTURE(call);
    const Scene change;
    auto image = change.open();
    auto faulty = std::make_unique<FaultyFile>(std::move(image), call, call);
    const FaultyFile& file = *faulty;
    image = std::move(faulty);
    const auto done = change.commit(image, {.verb = "test"});
    if (!file.has_failed()) {
      CHECK(done.has_value());
      CHECK(call > 4);
      break;
    }
    REQUIRE_FALSE(done.has_value());
    CHECK((read_file(change.path()) == old_content));
    CHECK_FALSE(exists(change.pending()));
  }
}

TEST_CASE("commit: where writing fails for good, resume goes on or goes back") {
  for (int call = 1; call < 6; ++call) {
    for (const bool abandon : {false, true}) {
      CAPTURE(call);
      const Scene change;
      {
        auto image = change.open();
        image = std::make_unique<FaultyFile>(std::move(image), call, never);
        const auto done = change.commit(image, {.verb = "test"});
        REQUIRE_FALSE(done.has_value());
        CHECK(done.error().message.find("resume") != std::string::npos);
      }
      CHECK(exists(change.pending()));
      const auto outcome = change.resume(abandon);
      REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
      CHECK(outcome->resumed == (abandon ? Resumed::abandoned : Resumed::finished));
      CHECK((read_file(change.path()) == (abandon ? old_content : new_content)));
      CHECK_FALSE(exists(change.pending()));
      CHECK(exists(change.undo_file()) != abandon);
    }
  }
}

TEST_CASE("commit: where memory ends, the side file stays, and resume goes on or goes back") {
  for (const bool abandon : {false, true}) {
    for (int call = 1;; ++call) {
      CAPTURE(call);
      const Scene change;
      auto image = change.open();
      auto faulty = std::make_unique<FaultyFile>(std::move(image), call, call, true);
      const FaultyFile& file = *faulty;
      image = std::move(faulty);
      const auto done = change.commit(image, {.verb = "test"});
      if (!file.has_failed()) {
        CHECK(done.has_value());
        CHECK(call > 4);
        break;
      }
      REQUIRE_FALSE(done.has_value());
      CHECK(done.error().message.starts_with("out of memory. "));
      CHECK(done.error().message.find("'coldchain resume " + change.path()) != std::string::npos);
      CHECK(exists(change.pending()));
      const auto outcome = change.resume(abandon);
      REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
      CHECK((read_file(change.path()) == (abandon ? old_content : new_content)));
      CHECK_FALSE(exists(change.pending()));
    }
  }
}

TEST_CASE("commit: refuses while something is pending") {
  const Scene change;
  testing::write_file(change.pending(), std::string("x"));
  auto image = change.open();
  const auto done = change.commit(image, {.verb = "test"});
  REQUIRE_FALSE(done.has_value());
  CHECK((read_file(change.path()) == old_content));
}

TEST_CASE("commit: where clusters were kept, the file that says so stays beside the image") {
  Scene change;
  const std::string folder = change.folder() / "kept";
  REQUIRE(::mkdir(folder.c_str(), 0700) == 0);
  change.keep_in(folder);
  auto image = change.open();
  const auto side_files = change.side_files(image).value();
  CHECK_FALSE(has_kept_clusters(*image, side_files).value());
  const auto kept = change.commit(image, {.verb = "test", .kept_clusters = 1, .keeps_undo = false});
  REQUIRE(kept.has_value());
  CHECK(*kept == change.undo_file());
  CHECK(has_kept_clusters(*image, side_files).value());
}

TEST_CASE("commit: a folder for kept files on another file system is refused at the beginning") {
  struct stat here = {};
  struct stat there = {};
  Scene change;
  REQUIRE(::stat(change.path().c_str(), &here) == 0);
  if (::stat("/dev/shm", &there) != 0 || here.st_dev == there.st_dev) {
    MESSAGE("skipped: /dev/shm is no other file system");
    return;
  }
  change.keep_in("/dev/shm");
  auto image = change.open();
  CHECK(change.side_files(image).error().code == ErrorCode::refused);
}

TEST_CASE("commit: clusters that were kept are remembered, whatever becomes of names and owners") {
  const auto with_kept = [](Scene& change) {
    auto image = change.open();
    REQUIRE(change.commit(image, {.verb = "test", .kept_clusters = 1}).has_value());
  };
  const auto remembers = [](const Scene& change) {
    auto image = change.open();
    return has_kept_clusters(*image, change.side_files(image).value()).value();
  };
  {
    Scene gap;  // the first of two is removed
    testing::write_file(gap.undo_file(), std::string("x"));
    with_kept(gap);
    REQUIRE(::unlink(gap.undo_file().c_str()) == 0);
    CHECK(remembers(gap));
  }
  {
    Scene copied;  // another file of that name
    with_kept(copied);
    const std::string copy = copied.folder() / "copy";
    testing::write_file(copy, read_file(copied.path()));
    REQUIRE(::rename(copy.c_str(), copied.path().c_str()) == 0);
    CHECK(remembers(copied));
  }
  {
    Scene moved;  // another name of that file
    with_kept(moved);
    const std::string other = moved.folder() / "other.coldchain-undo";
    REQUIRE(::rename(moved.undo_file().c_str(), other.c_str()) == 0);
    CHECK(remembers(moved));
  }
  {
    Scene shared;  // that others could have written
    with_kept(shared);
    REQUIRE(::chmod(shared.undo_file().c_str(), 0666) == 0);
    CHECK(remembers(shared));
  }
  {
    Scene damaged;
    with_kept(damaged);
    testing::write_file(damaged.undo_file(), std::string(8192, 'x'));
    CHECK(remembers(damaged));
  }
  {
    Scene undone;
    with_kept(undone);
    REQUIRE(undone.undo().has_value());
    CHECK_FALSE(remembers(undone));
  }
}
