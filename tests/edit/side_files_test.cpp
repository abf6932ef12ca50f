// SPDX-License-Identifier: MIT
#include "interrupted.hpp"

#include <filesystem>
#include <optional>

#include <coldchain/edit/pending.hpp>

#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace coldchain;
using namespace coldchain::edit;
using testing::exists;
using testing::new_content;
using testing::old_content;
using testing::read_file;
using testing::Scene;
using testing::TempFolder;

namespace {

// A user who may write to the image, but not to its folder. Root may write to every folder.
class Unprivileged {
 public:
  explicit Unprivileged(const Scene& scene) : folder_(scene.folder().path()) {
    if (::geteuid() == 0) {
      constexpr uid_t user = 65533;
      REQUIRE(::chown(scene.path().c_str(), user, user) == 0);
      REQUIRE(::chmod(folder_.c_str(), 0755) == 0);
      REQUIRE(::seteuid(user) == 0);
    } else {
      REQUIRE(::chmod(folder_.c_str(), 0555) == 0);
    }
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;
  ~Unprivileged() {
    (void)::seteuid(::getuid());
    (void)::chmod(folder_.c_str(), 0700);
  }

 private:
  std::string folder_;
};

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename());
  return names;
}

// A state folder in which every user may create files.
class StateFolder {
 public:
  StateFolder() { REQUIRE(::chmod(folder_.path().c_str(), 01777) == 0); }

  [[nodiscard]] const std::string& path() const { return folder_.path(); }
  [[nodiscard]] std::vector<std::string> names() const { return names_in(folder_.path()); }

 private:
  TempFolder folder_;
};

// A file system with room for one marker, but for no journal. Nothing where it cannot be had.
class FullDisk {
 public:
  FullDisk() {
    is_mounted_ = ::mount("coldchain-test", folder_.path().c_str(), "tmpfs", 0, "size=20k") == 0;
    if (!is_mounted_)
      MESSAGE("skipped: only root can mount a small file system");
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    if (is_mounted_)
      (void)::umount(folder_.path().c_str());
  }

  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  [[nodiscard]] std::string image() const { return folder_ / "image"; }
  [[nodiscard]] std::string marker() const { return image() + pending_suffix; }

 private:
  TempFolder folder_;
  bool is_mounted_ = false;
};

// A change of the image on the full disk, whose journal needs more than the disk has left.
Result<std::optional<std::string>> change_on(const FullDisk& disk, const SideFolders& folders,
                                             int fails_from = testing::never) {
  auto image = std::make_unique<testing::FaultyFile>(testing::open_for_writing(disk.image()),
                                                     fails_from, testing::never);
  Transaction transaction(*image);
  TRY(transaction.stage(Phase::link, {0}, Bytes(4096, std::byte{'n'})));
  return edit::commit(transaction, *image, TRY(SideFiles::of(*image, folders)),
                      {.verb = "test", .keeps_undo = false});
}

Result<ResumeOutcome> resume_on(const FullDisk& disk, const SideFolders& folders, bool abandon) {
  const auto image = testing::open_for_writing(disk.image());
  return edit::resume(*image, TRY(SideFiles::of(*image, folders)), abandon, testing::find_nothing);
}

}  // namespace

TEST_CASE("SideFiles: if the folder cannot be written to, the journal lies in the state folder") {
  for (const bool abandon : {false, true}) {
    CAPTURE(abandon);
    Scene change;
    const StateFolder state;
    change.folders().state = state.path();
    const Unprivileged user(change);
    {
      auto image = change.open();
      image = std::make_unique<testing::FaultyFile>(std::move(image), 3, testing::never);
      const auto done = change.commit(image, {.verb = "test"});
      REQUIRE_FALSE(done.has_value());
      CHECK_MESSAGE(done.error().message.find(state.path()) != std::string::npos,
                    done.error().message);
    }
    REQUIRE(state.names().size() == 1);
    CHECK(state.names().front().starts_with("file-"));
    CHECK_FALSE(exists(change.pending()));
    // A run that only reads finds it, and no other change begins.
    const auto image = change.open();
    const SideFiles side_files = change.side_files(image).value();
    CHECK(look_at_pending(*image, side_files)->kind == PendingKind::believed);
    CHECK_FALSE(check_nothing_pending(*image, side_files).has_value());
    const auto outcome = change.resume(abandon);
    REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
    CHECK(read_file(change.path()) == (abandon ? old_content : new_content));
    CHECK(look_at_pending(*image, side_files)->kind == PendingKind::none);
    CHECK(state.names().size() == (abandon ? 0 : 1));  // the undo file
  }
}

TEST_CASE("SideFiles: the state folder is created for the first journal that needs it") {
  Scene change;
  const StateFolder parent;
  change.folders().state = parent.path() + "/state";
  const Unprivileged user(change);
  const auto image = change.open();
  CHECK(change.side_files(image)->has_pending().value() == false);
  CHECK_FALSE(exists(change.folders().state));
  const auto kept = change.commit(image, {.verb = "test", .kept_clusters = 1});
  REQUIRE_MESSAGE(kept.has_value(), kept.error().message);
  CHECK(kept->value().starts_with(change.folders().state));
  // Its owner decides who may write there.
  struct stat facts = {};
  REQUIRE(::stat(change.folders().state.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 07777U) == 0755);
  // Later changes know of the clusters that this one kept.
  CHECK(has_kept_clusters(*image, change.side_files(image).value()).value());
}

TEST_CASE(
    "SideFiles: where no folder can take the journal, each is named, and nothing is written") {
  Scene change;
  const TempFolder state;
  REQUIRE(::chmod(state.path().c_str(), 0555) == 0);
  change.folders().state = state.path();
  const Unprivileged user(change);
  const auto image = change.open();
  const auto done = change.commit(image, {.verb = "test"});
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().code == ErrorCode::refused);
  for (const std::string& part : {change.folder().path(), state.path(), std::string("bytes")})
    CHECK_MESSAGE(done.error().message.find(part) != std::string::npos, done.error().message);
  CHECK(read_file(change.path()) == old_content);
}

TEST_CASE("SideFiles: a state folder that cannot be searched hides a change, and none begins") {
  Scene change;
  const TempFolder parent;
  change.folders().state = parent / "state";
  REQUIRE(::mkdir(change.folders().state.c_str(), 0000) == 0);
  const Unprivileged user(change);
  const auto image = change.open();
  CHECK_FALSE(check_nothing_pending(*image, change.side_files(image).value()).has_value());
}

TEST_CASE("SideFiles: a journal in a folder that the caller names has a marker beside the image") {
  for (const bool abandon : {false, true}) {
    const FullDisk disk;
    if (!disk.is_mounted())
      return;
    testing::write_file(disk.image(), old_content);
    const TempFolder state;
    const TempFolder other;
    const SideFolders named{.state = state / "missing", .other = other.path()};
    const SideFolders unnamed{.state = state / "missing"};
    const auto stopped = change_on(disk, named, 1);
    REQUIRE_FALSE(stopped.has_value());
    CHECK_MESSAGE(stopped.error().message.find("--state-dir " + other.path()) != std::string::npos,
                  stopped.error().message);
    REQUIRE(exists(disk.marker()));
    REQUIRE(names_in(other.path()).size() == 1);
    const std::string marker = read_file(disk.marker());
    {
      const auto image = testing::open_for_writing(disk.image());
      const auto found = look_at_pending(*image, SideFiles::of(*image, unnamed).value());
      REQUIRE(found->error);
      CHECK_MESSAGE(found->error->message.find("'coldchain resume --state-dir " + other.path()) !=
                        std::string::npos,
                    found->error->message);
    }
    CHECK_FALSE(resume_on(disk, unnamed, abandon).has_value());
    CHECK_FALSE(change_on(disk, unnamed).has_value());
    REQUIRE(resume_on(disk, named, abandon).has_value());
    CHECK(read_file(disk.image()) == (abandon ? old_content : std::string(4096, 'n')));
    CHECK_FALSE(exists(disk.marker()));
    CHECK(names_in(other.path()).empty());
    // The marker goes last: a kill before that leaves it alone, and the same command removes it.
    testing::write_file(disk.marker(), marker);
    REQUIRE(::chmod(disk.marker().c_str(), 0600) == 0);
    CHECK_FALSE(resume_on(disk, unnamed, abandon).has_value());
    REQUIRE(resume_on(disk, named, abandon)->resumed == Resumed::nothing_changed);
    CHECK_FALSE(exists(disk.marker()));
  }
}

TEST_CASE("SideFiles: later changes find the clusters that a change with a named folder kept") {
  const FullDisk disk;
  if (!disk.is_mounted())
    return;
  testing::write_file(disk.image(), old_content);
  const TempFolder state;
  const TempFolder other;
  const SideFolders named{.state = state.path(), .other = other.path()};
  const SideFolders unnamed{.state = state.path()};
  const auto image = testing::open_for_writing(disk.image());
  Transaction transaction(*image);
  REQUIRE(transaction.stage(Phase::link, {0}, Bytes(4096, std::byte{'n'})).has_value());
  const auto kept = edit::commit(transaction, *image, SideFiles::of(*image, named).value(),
                                 {.verb = "test", .kept_clusters = 1});
  REQUIRE_MESSAGE(kept.has_value(), kept.error().message);
  CHECK(kept->value().starts_with(state.path()));
  CHECK(has_kept_clusters(*image, SideFiles::of(*image, unnamed).value()).value());
}

TEST_CASE("SideFiles: if the name of the image is too long, the journal lies in the state folder") {
  const TempFolder folder;
  const StateFolder state;
  const SideFolders folders{.state = state.path()};
  const std::string path = folder / std::string(250, 'n');
  testing::write_file(path, old_content);
  const auto image = testing::open_for_writing(path);
  Transaction transaction(*image);
  REQUIRE(transaction.stage(Phase::link, {0}, Bytes(512, std::byte{'n'})).has_value());
  const SideFiles side_files = SideFiles::of(*image, folders).value();
  CHECK(look_at_pending(*image, side_files)->kind == PendingKind::none);
  const auto kept = edit::commit(transaction, *image, side_files, {.verb = "test"});
  REQUIRE_MESSAGE(kept.has_value(), kept.error().message);
  CHECK(kept->value().starts_with(state.path()));
}
