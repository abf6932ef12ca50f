// SPDX-License-Identifier: MIT
#include "commit_scene.hpp"

#include <doctest/doctest.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::over;
using testing::quoted;
using testing::Ran;
using testing::run_coldchain_in;
using testing::run_in;
using testing::TempFolder;
using Scene = testing::CommitScene;

namespace {

// The first command to resume that the message advises, as the shell gets it, run elsewhere.
int run_advised(const std::string& message) {
  const std::size_t begin = message.find("coldchain resume");
  REQUIRE_MESSAGE(begin != std::string::npos, message);
  const std::string command = message.substr(begin, message.find("', or roll back", begin) - begin);
  const auto ran = run_in("/", quoted(COLDCHAIN_PROGRAM) + command.substr(command.find(' ')));
  CHECK_MESSAGE(ran.status == 0, command, ran.err);
  return ran.status;
}

}  // namespace

TEST_CASE("verbs that look: a change that is pending is told however the image is named") {
  const TempFolder folder;
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "a");
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "b");
  testing::write_file(folder / "a.coldchain-pending", std::string());
  const std::string expected = "a change of " + (folder / "a") +
                               " was interrupted; continue with 'coldchain resume " +
                               (folder / "a") + "'";
  const std::string options = "driver=qcow2,file.filename=a";
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"check", "-q", "a"},
           {"check", "-q", "a", "b"},
           {"check", "-q", "b", "a"},
           {"check", "-q", "."},
           {"check", "--output=sarif", "."},
           {"check", "-q", "file:a"},
           {"check", "-q", "json:{\"driver\":\"qcow2\",\"file.filename\":\"a\"}"},
           {"check", "-q", "--image-opts", options},
           {"tree", "a"},
           {"tree", "."},
           {"tree", "--fast", "."},
           {"tree", "file:a"},
           {"info", "--image-opts", options},
           {"map", "file:a"},
           {"layout", "file:a"},
           {"measure", "-O", "qcow2", "file:a"}}) {
    CAPTURE(command);
    const Ran ran = run_coldchain_in(folder.path(), command);
    const std::size_t at = ran.err.find(expected);
    CHECK_MESSAGE(at != std::string::npos, ran.err);
    CHECK(ran.err.find(expected, at + 1) == std::string::npos);
  }
  CHECK(run_coldchain_in(folder.path(), {"check", "-q", "b"}).err.empty());
}

TEST_CASE("check: with a backing chain, a change that is pending in a layer is told") {
  const TempFolder folder;
  ImageBuilder(over("")).build().write_to(folder / "base");
  ImageBuilder(over("base")).build().write_to(folder / "top");
  testing::write_file(folder / "base.coldchain-pending", std::string());
  CHECK(run_coldchain_in(folder.path(), {"check", "top"}).err.empty());
  CHECK(run_coldchain_in(folder.path(), {"check", "--backing-chain", "top"}).err.find("/base") !=
        std::string::npos);
}

TEST_CASE("verbs that look: the command that goes on with a change can be pasted, anywhere") {
  for (const std::vector<std::string>& naming :
       std::vector<std::vector<std::string>>{{"file:a b"},
                                             {"json:{\"file.filename\":\"a b\"}"},
                                             {"--image-opts", "driver=qcow2,file.filename=a b"},
                                             {"./a b"}}) {
    const TempFolder folder;
    ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "a b");
    testing::write_file(folder / "a b.coldchain-pending", std::string());
    std::vector<std::string> command = {"info"};
    command.insert(command.end(), naming.begin(), naming.end());
    CHECK(run_advised(run_coldchain_in(folder.path(), command).err) == 0);
    CHECK_FALSE(std::filesystem::exists(folder / "a b.coldchain-pending"));
  }
}

TEST_CASE("verbs that look: under a sysroot, the command goes on with the change of that image") {
  const TempFolder folder;
  const std::string sysroot = folder / "sys root";
  const std::string images = sysroot + folder.path();
  std::filesystem::create_directories(images);
  // Another file, which the same name means on the host.
  for (const std::string& place : {folder.path(), images}) {
    ImageBuilder(over("")).data(1, place == images ? 'b' : 'x').build().write_to(place + "/base");
    ImageBuilder top(over(folder / "base"));
    for (std::uint64_t cluster = 3; cluster < 4500; ++cluster)
      top.data(cluster, 't');
    top.build().write_to(place + "/top");
  }
  const std::string host = testing::read_file(folder / "base");
  for (const char* verb : {"pull", "commit"}) {
    CAPTURE(verb);
    REQUIRE(
        testing::interrupt_coldchain_in("/", {verb, "--sysroot", sysroot, folder.path() + "/top"})
            .status == testing::status_of_interrupted);
    const Ran looked =
        run_coldchain_in(folder.path(), {"tree", "--sysroot", "sys root", folder / "top"});
    CHECK_MESSAGE(looked.err.find("'coldchain resume --sysroot '" + sysroot + "' '" + images +
                                  "/top''") != std::string::npos,
                  looked.err);
    CHECK(run_advised(looked.err) == 0);
    CHECK_FALSE(std::filesystem::exists(images + "/top.coldchain-pending"));
    ImageBuilder top(over(folder / "base"));
    for (std::uint64_t cluster = 3; cluster < 4500; ++cluster)
      top.data(cluster, 't');
    top.build().write_to(images + "/top");
  }
  CHECK((testing::read_file(folder / "base") == host));
}

TEST_CASE(
    "verbs that change: what is in the way under a sysroot is told with a command that works") {
  const Scene scene;
  const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
  REQUIRE(scene.interrupt({"pull", "--sysroot", folder, "/top"}).status ==
          testing::status_of_interrupted);
  const std::string words = "coldchain resume --sysroot " + folder + " " + scene.path("top");
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"pull", "-b", "base", "--sysroot", folder, "/top"},
           {"rebase", "-u", "-b", "", "--sysroot", folder, "/top"},
           {"repair", "--sysroot", folder, "/top"},
           {"commit", "--sysroot", folder, "/top"}}) {
    CAPTURE(command);
    const Ran refused = scene.run(command);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("'" + words + "'") != std::string::npos, refused.err);
  }
  const auto ended = run_in("/", quoted(COLDCHAIN_PROGRAM) + words.substr(words.find(' ')));
  CHECK_MESSAGE(ended.status == 0, ended.err);
  CHECK_FALSE(scene.is_pending());
}
