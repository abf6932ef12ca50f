// SPDX-License-Identifier: MIT
// Journals and plans that another user can have written. Only root can make them for a test.
#include "commit_scene.hpp"
#include "former_journals.hpp"

#include <cstdlib>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace coldchain;
using testing::FormerJournals;
using testing::Process;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;
using Scene = testing::CommitScene;

namespace {

constexpr uid_t other_user = 65533;

bool is_root() {
  if (::geteuid() == 0)
    return true;
  MESSAGE("skipped: only root can make files of other users");
  return false;
}

void give(const std::string& path) {
  REQUIRE(::chown(path.c_str(), other_user, other_user) == 0);
}

std::string all_of(const TempFolder& folder) {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    all += entry.path().filename().string() + read_file(entry.path());
  return all;
}

}  // namespace

TEST_CASE("resume: no change that is planned again is continued or rolled back for another user") {
  if (!is_root())
    return;
  const FormerJournals journals;
  for (const std::string scene :
       {"pull-top.pull.writing", "rebase-top.rebase.writing", "allocate-top.allocate.writing",
        "commit-base.commit-base.writing-top.commit-top.writing",
        "commit-kept-top.commit-top-kept.writing"}) {
    for (const bool abandon : {false, true}) {
      CAPTURE(scene);
      const TempFolder folder;
      journals.lay_out(scene, folder);
      for (const std::string image : {"top", "base"})
        give(folder / image);
      give(folder / "top.coldchain-pending");
      const std::string before = all_of(folder);
      std::vector<std::string> command{"resume", "top"};
      if (abandon)
        command.insert(command.begin() + 1, "--abandon");
      const Ran ran = run_coldchain_in(folder.path(), command);
      CHECK(ran.status == 1);
      CHECK_MESSAGE(ran.err.find("belongs to user 65533") != std::string::npos, ran.err);
      CHECK_MESSAGE(ran.err.find("sudo -u '#65533' coldchain resume ") != std::string::npos,
                    ran.err);
      CHECK(all_of(folder) == before);
    }
  }
}

TEST_CASE("resume: records of the image's owner are carried out, those of a stranger are not") {
  if (!is_root())
    return;
  const FormerJournals journals;
  for (const bool is_owner : {true, false}) {
    const TempFolder folder;
    journals.lay_out("repair-a.repair.applying", folder);
    give(folder / "a.coldchain-pending");
    if (is_owner)
      give(folder / "a");
    const Ran ran = run_coldchain_in(folder.path(), {"resume", "a"});
    CHECK_MESSAGE(ran.status == (is_owner ? 0 : 1), ran.err);
    CHECK(std::filesystem::exists(folder / "a.coldchain-pending") == !is_owner);
  }
}

TEST_CASE("resume: root continues its own change whoever owns the images by now") {
  if (!is_root())
    return;
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
  for (const std::string image : {"top", "mid", "base"})
    give(scene.path(image));
  const Ran ran = scene.run({"resume", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK_FALSE(scene.is_pending());
}

TEST_CASE("resume: an image that only another user's journal names is not written to") {
  if (!is_root())
    return;
  const FormerJournals journals;
  const TempFolder folder;
  journals.lay_out("commit-top.commit-top.applying", folder);
  give(folder / "top");
  give(folder / "top.coldchain-pending");
  const std::string before = all_of(folder);
  const Ran ran = run_coldchain_in(folder.path(), {"resume", "base"});
  CHECK(ran.status == 1);
  CHECK_MESSAGE(ran.err.find("sudo -u '#65533' coldchain resume ") != std::string::npos, ran.err);
  CHECK_MESSAGE(ran.err.find("/top") != std::string::npos, ran.err);
  CHECK(all_of(folder) == before);
}

TEST_CASE("check: what is no journal that is believed is named, and no resume is advised") {
  if (!is_root())
    return;
  const Scene scene;
  const std::string pending = scene.path("top.coldchain-pending");
  const auto check_verbs = [&](const std::string& what) {
    CAPTURE(what);
    const std::vector<std::vector<std::string>> looking{
        {"check", "top"},          {"info", "top"},        {"map", "top"},
        {"tree", "top"},           {"layout", "top"},      {"measure", "-O", "qcow2", "top"},
        {"plan", "commit", "top"}, {"plan", "pull", "top"}};
    for (const std::vector<std::string>& verb : looking) {
      const Ran looked = scene.run(verb);
      CHECK(looked.status == 0);
      CHECK_MESSAGE(looked.err.find("'mv " + pending) != std::string::npos, looked.err);
      CHECK(looked.err.find("'coldchain resume") == std::string::npos);
    }
    const std::vector<std::vector<std::string>> verbs{
        {"commit", "top"},   {"pull", "top"},   {"rebase", "-u", "-b", "", "top"},
        {"allocate", "top"}, {"repair", "top"}, {"plan", "repair", "top"}};
    for (const std::vector<std::string>& verb : verbs) {
      const Ran ran = scene.run(verb);
      CHECK(ran.status == 1);
      CHECK_MESSAGE(ran.err.find("'mv " + pending) != std::string::npos, ran.err);
    }
    CHECK(scene.is_as_before());
    std::filesystem::remove_all(pending);
  };
  testing::write_file(pending, "junk");
  check_verbs("a file of other content");
  testing::write_file(pending, "");
  give(pending);
  check_verbs("an empty file of another user");
  std::filesystem::create_directory(pending);
  check_verbs("a folder");
  std::filesystem::create_symlink(scene.path("base"), pending);
  check_verbs("a symbolic link");
  REQUIRE(::mkfifo(pending.c_str(), 0600) == 0);
  check_verbs("a FIFO");
}

TEST_CASE("check: a user who may not read a journal learns whose it is") {
  if (!is_root())
    return;
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
  const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
  REQUIRE(::chmod(folder.c_str(), 0755) == 0);
  // Where the program lies, that user may not be allowed to look.
  const std::string program = folder + "/program";
  std::filesystem::copy_file(COLDCHAIN_PROGRAM, program);
  REQUIRE(::chmod(program.c_str(), 0755) == 0);
  const Process ran = testing::run_in(
      folder, "setpriv --reuid=65533 --regid=65533 --clear-groups ./program check top");
  CHECK_MESSAGE(ran.err.find("belongs to root") != std::string::npos, ran.err);
  CHECK_MESSAGE(ran.err.find("'sudo coldchain resume ") != std::string::npos, ran.err);
}

TEST_CASE("resume: allows nothing that is not given to it, and names the option") {
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "--force", "top"}).status == testing::status_of_interrupted);
  // It reads through the image that is written to, and would read something else.
  testing::ImageBuilder(testing::over("mid")).build().write_to(scene.path("reader"));
  const Ran refused = scene.run({"resume", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("--force") != std::string::npos, refused.err);
  const Ran forced = scene.run({"resume", "--force", "top"});
  CHECK_MESSAGE(forced.status == 0, forced.err);
}

TEST_CASE("resume: rolling back needs no --force") {
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "--force", "top"}).status == testing::status_of_interrupted);
  testing::ImageBuilder(testing::over("mid")).build().write_to(scene.path("reader"));
  const Ran ran = scene.run({"resume", "--abandon", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK_FALSE(scene.is_pending());
}

TEST_CASE("resume: a chain in another folder needs the format, as at the beginning") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "below");
  testing::ImageBuilder(testing::over("")).build().write_to(folder / "below/base");
  testing::ImageBuilder top(testing::over("below/base"));
  for (std::uint64_t cluster = 0; cluster < 4500; ++cluster)
    top.data(cluster, 't');
  top.build().write_to(folder / "top");
  const auto interrupted =
      testing::interrupt_coldchain_in(folder.path(), {"commit", "-f", "qcow2", "top"});
  REQUIRE(interrupted.status == testing::status_of_interrupted);
  const Ran refused = run_coldchain_in(folder.path(), {"resume", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("give -f qcow2") != std::string::npos, refused.err);
  const Ran ran = run_coldchain_in(folder.path(), {"resume", "-f", "qcow2", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("apply: another user's plan writes only to images that are repeated") {
  if (!is_root())
    return;
  const Scene scene;
  const std::string plan = scene.path("plan.json");
  testing::write_file(plan, scene.run({"plan", "commit", "--output=json", "top"}).out);
  give(plan);
  const std::vector<std::vector<std::string>> refused{
      {"apply", plan}, {"apply", plan, "top"}, {"apply", plan, "base", "top"}};
  for (const std::vector<std::string>& command : refused) {
    CHECK(scene.run(command).status == 1);
    CHECK(scene.is_as_before());
  }
  const Ran ran = scene.run({"apply", plan, "top", "mid"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  for (const std::string image : {"top", "mid"})
    CHECK_MESSAGE(ran.err.find("the plan writes to " + scene.path(image)) != std::string::npos,
                  ran.err);
}

TEST_CASE("apply: a plan allows nothing; what is missing is given to apply") {
  const Scene scene;
  testing::ImageBuilder(testing::over("mid")).build().write_to(scene.path("reader"));
  const std::string plan = scene.path("plan.json");
  testing::write_file(plan, scene.run({"plan", "commit", "--force", "--output=json", "top"}).out);
  const Ran refused = scene.run({"apply", plan});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("--force") != std::string::npos, refused.err);
  CHECK(scene.is_as_before());
  const Ran ran = scene.run({"apply", "--force", plan});
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("apply: --root in a plan vouches for no chain") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "below");
  testing::ImageBuilder(testing::over("")).data(1, 'b').build().write_to(folder / "below/base");
  testing::ImageBuilder(testing::over("below/base")).build().write_to(folder / "top");
  const std::string plan = folder / "plan.json";
  testing::write_file(
      plan,
      run_coldchain_in(folder.path(), {"plan", "pull", "--root", "/", "--output=json", "top"}).out);
  const Ran refused = run_coldchain_in(folder.path(), {"apply", plan});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("give -f qcow2") != std::string::npos, refused.err);
  const Ran ran = run_coldchain_in(folder.path(), {"apply", "-f", "qcow2", plan});
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("commit: with -b, a layer in between that lies in another folder needs the format") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "private");
  testing::ImageBuilder(testing::over("")).build().write_to(folder / "base");
  testing::ImageBuilder(testing::over("../base"))
      .data(1, 's')
      .build()
      .write_to(folder / "private/mid");
  testing::ImageBuilder(testing::over("private/mid")).build().write_to(folder / "top");
  const std::string before = read_file(folder / "base");
  const Ran refused = run_coldchain_in(folder.path(), {"commit", "-b", "../base", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("give -f qcow2") != std::string::npos, refused.err);
  CHECK((read_file(folder / "base") == before));
}

TEST_CASE("commit: -b does not vouch for a base in another folder that the image names") {
  const TempFolder folder;
  for (const char* name : {"private", "images"})
    std::filesystem::create_directory(folder / name);
  testing::write_file(folder / "private/secret", std::string(1 << 20, 's'));
  std::filesystem::create_symlink("../private/secret", folder / "images/base");
  testing::ImageOptions options = testing::over("base");
  options.backing_format = "raw";
  testing::ImageBuilder(options).data(0, 't').build().write_to(folder / "images/top");
  const std::string before = read_file(folder / "private/secret");
  for (const std::string name : {"base", "images/base"}) {
    const Ran refused = run_coldchain_in(folder.path(), {"commit", "-b", name, "images/top"});
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("give -f qcow2") != std::string::npos, refused.err);
    CHECK((read_file(folder / "private/secret") == before));
  }
}

TEST_CASE("undo: a journal of a pull that was set aside is no undo file") {
  const FormerJournals journals;
  const TempFolder folder;
  journals.lay_out("pull-top.pull.linking", folder);
  std::filesystem::rename(folder / "top.coldchain-pending", folder / "top.coldchain-given-up");
  const std::string before = read_file(folder / "top");
  const Ran ran = run_coldchain_in(folder.path(), {"undo", "top.coldchain-given-up", "top"});
  CHECK(ran.status == 1);
  CHECK((read_file(folder / "top") == before));
}

TEST_CASE("resume: a foreign journal is described in our words alone") {
  if (!is_root())
    return;
  const FormerJournals journals;
  const TempFolder folder;
  journals.lay_out("pull-top.pull.writing", folder);
  give(folder / "top.coldchain-pending");
  const Ran ran = run_coldchain_in(folder.path(), {"resume", "top"});
  CHECK_MESSAGE(ran.err.find("continues its change, a pull; ") != std::string::npos, ran.err);
}
