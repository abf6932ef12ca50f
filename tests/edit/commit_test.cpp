// SPDX-License-Identifier: MIT
#include "temp_folder.hpp"

#include <limits>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/commit.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace coldchain;
using namespace coldchain::edit;
using testing::read_file;
using testing::TempFolder;

namespace {

constexpr int never = std::numeric_limits<int>::max();

// Fails the calls that change a file from the `fails_from`-th to the `fails_to`-th.
class FaultyFile final : public io::WritableFile {
 public:
  FaultyFile(std::unique_ptr<io::WritableFile> file, int fails_from, int fails_to)
      : file_(std::move(file)), fails_from_(fails_from), fails_to_(fails_to) {}

  [[nodiscard]] bool has_failed() const { return calls_ >= fails_from_; }

  [[nodiscard]] const io::FileStatus& status() const override { return file_->status(); }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    return file_->read_at(offset, buffer);
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    return file_->next_data(from);
  }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    return file_->next_hole(from);
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return file_->lock_is_held(byte);
  }
  [[nodiscard]] Result<void> write_at(HostOffset offset, ByteView bytes) override {
    // Half of the sectors are written, as by a disk that is full.
    if (const Result<void> done = call(28); !done) {
      TRY(file_->write_at(offset, bytes.first(bytes.size() / 1024 * 512)));
      return done;
    }
    return file_->write_at(offset, bytes);
  }
  [[nodiscard]] Result<void> resize(std::uint64_t size) override {
    TRY(call(28));
    return file_->resize(size);
  }
  [[nodiscard]] Result<void> flush() override {
    TRY(call(5));
    return file_->flush();
  }
  [[nodiscard]] Result<void> refresh() override { return file_->refresh(); }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) override {
    return file_->hold_lock(byte);
  }

 private:
  Result<void> call(int error) {
    ++calls_;
    if (calls_ >= fails_from_ && calls_ <= fails_to_)
      return fail(system_error(error, "a test"));
    return {};
  }

  std::unique_ptr<io::WritableFile> file_;
  int fails_from_;
  int fails_to_;
  int calls_ = 0;
};

const std::string old_content(4096, 'o');
const std::string new_content = std::string(512, 'n') + std::string(3584, 'o') +
                                std::string(512, 'f') + std::string(3584, '\0');

// These images are none that could be checked.
Result<std::uint64_t> count(const io::File& /*image*/) {
  return 0;
}

// An image of o's, which a transaction makes the new content.
class Scene {
 public:
  Scene() { testing::write_file(path(), old_content); }

  [[nodiscard]] std::string path() const { return folder_ / "image"; }
  [[nodiscard]] std::string pending() const { return path() + ".coldchain-pending"; }
  [[nodiscard]] std::string undo_file() const { return path() + ".coldchain-undo"; }
  [[nodiscard]] const TempFolder& folder() const { return folder_; }

  // Kept files go there from now on.
  void keep_in(const std::string& folder) { folders_.undo = folder; }

  [[nodiscard]] Result<SideFiles> side_files(const io::WritableTarget& target) const {
    return SideFiles::of(target.file->status(), target.location, folders_);
  }

  // A change that was interrupted.
  void interrupt(const ChangeFacts& change) const {
    io::WritableTarget target = open();
    target.file = std::make_unique<FaultyFile>(std::move(target.file), 3, never);
    REQUIRE_FALSE(commit(target, change).has_value());
    REQUIRE(::access(pending().c_str(), F_OK) == 0);
  }

  [[nodiscard]] io::WritableTarget open() const {
    const auto files = io::system_files({}).value();
    return std::move(*files->open_writable(path()));
  }

  Result<std::optional<std::string>> commit(io::WritableTarget& target,
                                            const ChangeFacts& change) const {
    Transaction transaction(*target.file);
    transaction.grow(8192);
    TRY(transaction.stage(Phase::fresh, {4096}, Bytes(512, std::byte{'f'})));
    TRY(transaction.stage(Phase::link, {0}, Bytes(512, std::byte{'n'})));
    return edit::commit(transaction, target, TRY(side_files(target)), change);
  }

  Result<ResumeOutcome> resume(bool abandon) const {
    io::WritableTarget target = open();
    return edit::resume(target, TRY(side_files(target)), abandon, count);
  }

  Result<void> undo() const {
    io::WritableTarget target = open();
    const io::Folder folder = TRY(io::Folder::open(folder_.path()));
    const auto file = TRY(folder.open_trusted("image.coldchain-undo", ::geteuid()));
    return edit::undo(*file, undo_file(), target, TRY(side_files(target)), count);
  }

 private:
  TempFolder folder_;
  SideFolders folders_;
};

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace

TEST_CASE(
    "commit: changes the image, keeps an undo file that only its owner reads, and undo undoes") {
  const Scene change;
  io::WritableTarget target = change.open();
  const auto kept = change.commit(target, {.verb = "test"});
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
  io::WritableTarget target = change.open();
  const auto kept = change.commit(target, {.verb = "test", .keeps_undo = false});
  REQUIRE(kept.has_value());
  CHECK_FALSE(kept->has_value());
  CHECK_FALSE(exists(change.pending()));
  CHECK_FALSE(exists(change.undo_file()));
}

TEST_CASE("commit: undo files of one image do not replace each other") {
  const Scene change;
  testing::write_file(change.undo_file(), std::string("of another change"));
  io::WritableTarget target = change.open();
  const auto kept = change.commit(target, {.verb = "test"});
  REQUIRE(kept.has_value());
  CHECK(*kept == change.undo_file() + "-2");
}

TEST_CASE("commit: whichever call fails once, the image is as it was or can be finished") {
  for (int call = 1;; ++call) {
    CAPTURE(call);
    const Scene change;
    io::WritableTarget target = change.open();
    auto faulty = std::make_unique<FaultyFile>(std::move(target.file), call, call);
    const FaultyFile& file = *faulty;
    target.file = std::move(faulty);
    const auto done = change.commit(target, {.verb = "test"});
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
        io::WritableTarget target = change.open();
        target.file = std::make_unique<FaultyFile>(std::move(target.file), call, never);
        const auto done = change.commit(target, {.verb = "test"});
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

TEST_CASE("commit: refuses while something is pending") {
  const Scene change;
  testing::write_file(change.pending(), std::string("x"));
  io::WritableTarget target = change.open();
  const auto done = change.commit(target, {.verb = "test"});
  REQUIRE_FALSE(done.has_value());
  CHECK((read_file(change.path()) == old_content));
}

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
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
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
    io::WritableTarget target = change.open();
    target.file = std::make_unique<FaultyFile>(std::move(target.file), 3, never);
    const auto outcome = edit::resume(target, change.side_files(target).value(), false, count);
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().message.find("keeps what is left to do") != std::string::npos);
    CHECK(outcome.error().message.find("Nothing was written") == std::string::npos);
  }
  CHECK(change.resume(false)->resumed == Resumed::finished);
  CHECK((read_file(change.path()) == new_content));
}

TEST_CASE("commit: where clusters were kept, the file that says so stays beside the image") {
  Scene change;
  const std::string folder = change.folder() / "kept";
  REQUIRE(::mkdir(folder.c_str(), 0700) == 0);
  change.keep_in(folder);
  io::WritableTarget target = change.open();
  const auto side_files = change.side_files(target).value();
  CHECK_FALSE(has_kept_clusters(*target.file, side_files).value());
  const auto kept =
      change.commit(target, {.verb = "test", .kept_clusters = 1, .keeps_undo = false});
  REQUIRE(kept.has_value());
  CHECK(*kept == change.undo_file());
  CHECK(has_kept_clusters(*target.file, side_files).value());
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
  const io::WritableTarget target = change.open();
  CHECK(change.side_files(target).error().code == ErrorCode::refused);
}

TEST_CASE("resume: a side file that others could have written is not believed") {
  const Scene change;
  change.interrupt({.verb = "test"});
  REQUIRE(::chmod(change.pending().c_str(), 0666) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::refused);
  REQUIRE(::chmod(change.pending().c_str(), 0600) == 0);
  const std::string second_name = change.folder() / "second";
  REQUIRE(::link(change.pending().c_str(), second_name.c_str()) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::refused);
  REQUIRE(::unlink(second_name.c_str()) == 0);
  const std::string elsewhere = change.folder() / "elsewhere";
  REQUIRE(::rename(change.pending().c_str(), elsewhere.c_str()) == 0);
  REQUIRE(::symlink(elsewhere.c_str(), change.pending().c_str()) == 0);
  CHECK(change.resume(false).error().code == ErrorCode::refused);
}

TEST_CASE("undo: refuses where the image was modified since, and where another change is pending") {
  const Scene change;
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  // A second change, which is not finished.
  {
    io::WritableTarget target = change.open();
    Transaction transaction(*target.file);
    REQUIRE(transaction.stage(Phase::link, {0}, Bytes(512, std::byte{'x'})).has_value());
    const SideFiles side_files = change.side_files(target).value();
    target.file = std::make_unique<FaultyFile>(std::move(target.file), 1, never);
    REQUIRE_FALSE(edit::commit(transaction, target, side_files, {.verb = "test"}).has_value());
  }
  CHECK(change.undo().error().code == ErrorCode::refused);
  CHECK((read_file(change.path()) == new_content));
  const Scene other;
  {
    io::WritableTarget target = other.open();
    REQUIRE(other.commit(target, {.verb = "test"}).has_value());
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
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
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
      io::WritableTarget target = change.open();
      REQUIRE(change.commit(target, {.verb = "test"}).has_value());
    }
    REQUIRE(::rename(change.undo_file().c_str(), change.pending().c_str()) == 0);
    {
      io::WritableTarget target = change.open();
      auto faulty = std::make_unique<FaultyFile>(std::move(target.file), call, never);
      const FaultyFile& file = *faulty;
      target.file = std::move(faulty);
      const auto done = edit::resume(target, change.side_files(target).value(), true, count);
      if (!file.has_failed()) {
        CHECK(done->resumed == Resumed::abandoned);
        CHECK(call > 2);
        break;
      }
      REQUIRE_FALSE(done.has_value());
      CHECK(done.error().message.find("goes on going back") != std::string::npos);
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
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
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
  io::WritableTarget target = change.open();
  target.file = std::make_unique<FaultyFile>(std::move(target.file), fails_from, never);
  const io::Folder folder = io::Folder::open(change.folder().path()).value();
  const auto file = folder.open_trusted("image.coldchain-undo", ::geteuid()).value();
  REQUIRE_FALSE(
      edit::undo(*file, change.undo_file(), target, change.side_files(target).value(), count)
          .has_value());
  REQUIRE(exists(change.pending()));
}

}  // namespace

TEST_CASE("undo: one that was interrupted goes on wherever its file is moved to") {
  const Scene change;
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  CHECK(change.resume(false).error().message.find("run it again, of the file that was") !=
        std::string::npos);
  const std::string elsewhere = change.folder() / "elsewhere";
  REQUIRE(::rename(change.undo_file().c_str(), elsewhere.c_str()) == 0);
  io::WritableTarget target = change.open();
  const auto file =
      io::Folder::open(change.folder().path())->open_trusted("elsewhere", ::geteuid()).value();
  CHECK(edit::undo(*file, elsewhere, target, change.side_files(target).value(), count).has_value());
  CHECK((read_file(change.path()) == old_content));
  CHECK_FALSE(exists(change.pending()));
}

TEST_CASE(
    "undo: one that was interrupted goes on with a copy of its file, and else says the way out") {
  const Scene change;
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  const std::string bytes = read_file(change.undo_file());
  REQUIRE(::unlink(change.undo_file().c_str()) == 0);
  for (const bool abandon : {false, true}) {
    const std::string told = change.resume(abandon).error().message;
    CHECK(told.find("rename " + change.pending() + " to " + change.path() +
                    ".coldchain-given-up") != std::string::npos);
  }
  testing::write_file(change.undo_file(), bytes);
  REQUIRE(::chmod(change.undo_file().c_str(), 0600) == 0);
  CHECK(change.undo().has_value());
  CHECK((read_file(change.path()) == old_content));
}

TEST_CASE("resume: what is done and was written to since cannot be taken back, but ended") {
  const Scene change;
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  REQUIRE(::rename(change.undo_file().c_str(), change.pending().c_str()) == 0);
  testing::write_file(change.path(), std::string(8192, 'l'));
  CHECK(change.resume(true).error().message.find("without --abandon") != std::string::npos);
  CHECK(change.resume(false)->resumed == Resumed::finished);
}

TEST_CASE("undo: of an older change does not take the marker of one under way") {
  const Scene change;
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  REQUIRE(change.undo().has_value());
  const std::string older = change.folder() / "older";
  REQUIRE(::rename(change.undo_file().c_str(), older.c_str()) == 0);
  {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test"}).has_value());
  }
  interrupt_undo(change, 1);
  io::WritableTarget target = change.open();
  const auto file =
      io::Folder::open(change.folder().path())->open_trusted("older", ::geteuid()).value();
  CHECK_FALSE(
      edit::undo(*file, older, target, change.side_files(target).value(), count).has_value());
  CHECK(exists(change.pending()));
}

TEST_CASE("commit: clusters that were kept are remembered, whatever becomes of names and owners") {
  const auto with_kept = [](Scene& change) {
    io::WritableTarget target = change.open();
    REQUIRE(change.commit(target, {.verb = "test", .kept_clusters = 1}).has_value());
  };
  const auto remembers = [](const Scene& change) {
    const io::WritableTarget target = change.open();
    return has_kept_clusters(*target.file, change.side_files(target).value()).value();
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
