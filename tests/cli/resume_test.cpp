// SPDX-License-Identifier: MIT
#include "commit_scene.hpp"

#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::over;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;
using Scene = testing::CommitScene;

namespace {

// A raw base below a top with a bigger disk.
void make_chain_over_raw(const TempFolder& folder) {
  testing::write_file(folder / "base", std::string(1 << 20, 'b'));
  ImageOptions options = over("base");
  options.backing_format = "raw";
  ImageBuilder top(options);
  for (std::uint64_t cluster = 0; cluster < 4700; ++cluster)
    top.data(cluster, 't');
  top.build().write_to(folder / "top");
}

}  // namespace

TEST_CASE("commit: one that is interrupted is known of both images, and either leads on") {
  for (const std::string resumed : {"top", "mid"}) {
    const Scene scene;
    const std::string seen = scene.map("top");
    const Ran stopped = scene.interrupt({"commit", "top"});
    CHECK(stopped.status == testing::status_of_interrupted);
    CHECK(stopped.err.find("interrupted") != std::string::npos);
    CHECK(stopped.err.find("coldchain resume") != std::string::npos);
    CHECK(scene.map("top") == seen);
    for (const std::string image : {"top", "mid"})
      CHECK(scene.run({"info", image}).err.find("coldchain resume") != std::string::npos);
    // Nobody else goes on with it.
    CHECK(scene.run({"pull", "mid"}).status == 1);
    CHECK(scene.run({"commit", "-d", "top"}).err.find("another commit is pending") !=
          std::string::npos);
    const Ran ended = scene.run({"resume", resumed});
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK_FALSE(scene.is_pending());
    CHECK(scene.run({"check", "--backing-chain", "top"}).status == 0);
    CHECK(scene.run({"commit", "top"}).status == 0);
  }
}

TEST_CASE("commit: who has come to read the base while one is interrupted is not harmed") {
  const std::vector<std::vector<std::string>> ways{
      {"resume", "top"}, {"resume", "mid"}, {"commit", "top"}};
  for (const std::vector<std::string>& way : ways) {
    const Scene scene;
    REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
    ImageBuilder(over("mid")).data(9, 'o').build().write_to(scene.path("other"));
    const Ran refused = scene.run(way);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("other; 'coldchain resume --abandon ") != std::string::npos,
                  refused.err);
    CHECK(scene.is_pending());
    CHECK(scene.run({"commit", "--force", "top"}).status == 0);
    CHECK_FALSE(scene.is_pending());
  }
}

TEST_CASE("resume: of an image whose name has a protocol goes on with that file") {
  for (const std::vector<std::string>& begun :
       std::vector<std::vector<std::string>>{{"pull", "./nbd:top"}, {"commit", "./nbd:top"}}) {
    const Scene scene;
    std::filesystem::rename(scene.path("top"), scene.path("nbd:top"));
    REQUIRE(scene.interrupt(begun).status == testing::status_of_interrupted);
    const Ran ended = scene.run({"resume", "nbd:top"});
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK_FALSE(std::filesystem::exists(scene.path("nbd:top.coldchain-pending")));
  }
}

TEST_CASE(
    "commit: who reads the same through the top is in nobody's way, however long the base is") {
  const TempFolder folder;
  make_chain_over_raw(folder);
  ImageBuilder(over("top")).data(9, 'o').build().write_to(folder / "other");
  REQUIRE(testing::interrupt_coldchain_in(folder.path(), {"commit", "top"}).status ==
          testing::status_of_interrupted);
  REQUIRE(read_file(folder / "base").size() > (1 << 20));
  const Ran ended = run_coldchain_in(folder.path(), {"resume", "top"});
  CHECK_MESSAGE(ended.status == 0, ended.err);
}

TEST_CASE("resume: a format that is given is that of the image that is named, not of the other") {
  for (const std::string image : {"top", "base"}) {
    CAPTURE(image);
    const TempFolder folder;
    make_chain_over_raw(folder);
    REQUIRE(testing::interrupt_coldchain_in(folder.path(), {"commit", "top"}).status ==
            testing::status_of_interrupted);
    const std::string right = image == "top" ? "qcow2" : "raw";
    const std::string wrong = image == "top" ? "raw" : "qcow2";
    CHECK(run_coldchain_in(folder.path(), {"resume", "-f", wrong, image}).status == 1);
    const Ran ended = run_coldchain_in(folder.path(), {"resume", "-f", right, image});
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
  }
}

TEST_CASE("commit: one that only the base knows of is given up, which is no part of the output") {
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
  std::filesystem::remove(scene.path("top.coldchain-pending"));
  const Ran again = scene.run({"commit", "-q", "--output=json", "top"});
  CHECK_MESSAGE(again.status == 0, again.err);
  CHECK(nlohmann::json::parse(again.out)["schema"] == "coldchain.commit");
  CHECK_MESSAGE(
      again.err.find("In mid, up to 18423808 bytes may have changed, in 2 guest ranges") !=
          std::string::npos,
      again.err);
}

TEST_CASE("commit: one that is given up leaves a raw base as long as it has become") {
  const TempFolder folder;
  make_chain_over_raw(folder);
  REQUIRE(testing::interrupt_coldchain_in(folder.path(), {"commit", "top"}).status ==
          testing::status_of_interrupted);
  // Somebody may read it by now, and have written to it.
  std::string bytes = read_file(folder / "base");
  REQUIRE(bytes.size() == (32 << 20));
  bytes.back() = 'w';
  testing::write_file(folder / "base", bytes);
  const Ran given_up = run_coldchain_in(folder.path(), {"resume", "--abandon", "top"});
  CHECK_MESSAGE(given_up.status == 0, given_up.err);
  CHECK((read_file(folder / "base") == bytes));
  CHECK_MESSAGE(given_up.out.find("base stays longer than the 1048576 bytes") != std::string::npos,
                given_up.out);
}

TEST_CASE("commit: of one whose top was changed since nobody says what it has changed") {
  const Scene scene;
  REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
  ImageBuilder top(over("mid"));
  for (std::uint64_t cluster = 0; cluster < 4497; ++cluster)
    top.data(cluster, 'x');
  top.zero(5000).build().write_to(scene.path("top"));
  const Ran given_up = scene.run({"resume", "--abandon", "top"});
  CHECK_MESSAGE(given_up.status == 0, given_up.err);
  CHECK(given_up.out.find("All guest data that top holds itself may have changed in mid") !=
        std::string::npos);
  CHECK_FALSE(scene.is_pending());
}

TEST_CASE("resume: a side file of a layer below that cannot be read is told, and in nobody's way") {
  const Scene scene;
  testing::write_file(scene.path("mid.coldchain-pending"), std::string(8192, 'x'));
  std::filesystem::permissions(
      scene.path("mid.coldchain-pending"),
      std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const Ran ran = scene.run({"resume", "top"});
  CHECK(ran.status == 0);
  CHECK(ran.out == "Nothing is pending for top.\n");
  CHECK_MESSAGE(ran.err.find("mid.coldchain-pending") != std::string::npos, ran.err);
}

TEST_CASE(
    "commit: one that is given up leaves the image as it was, and says what may have changed") {
  const Scene scene;
  const std::string top = read_file(scene.path("top"));
  REQUIRE(scene.interrupt({"commit", "-b", "base", "top"}).status ==
          testing::status_of_interrupted);
  const Ran given_up = scene.run({"resume", "--abandon", "base"});
  CHECK_MESSAGE(given_up.status == 0, given_up.err);
  CHECK(given_up.out.find("top is as it was before") != std::string::npos);
  CHECK(given_up.out.find("0x2000-0x1194000") != std::string::npos);
  CHECK((read_file(scene.path("top")) == top));
  CHECK_FALSE(scene.is_pending());
  CHECK(scene.run({"check", "base"}).status == 0);
}

TEST_CASE("resume: a backing file that was moved is read at its new path, if it is the same file") {
  for (const char* verb : {"pull", "commit"}) {
    CAPTURE(verb);
    const TempFolder folder;
    std::filesystem::create_directory(folder / "old");
    ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "old/base");
    ImageBuilder mid(over("base"));
    for (std::uint64_t cluster = 3; cluster < 5000; ++cluster)
      mid.data(cluster, static_cast<std::uint8_t>(cluster % 251));
    mid.build().write_to(folder / "old/mid");
    ImageBuilder top(over("old/mid"));
    for (std::uint64_t cluster = 0; cluster < 4700; ++cluster)
      top.data(cluster, 't');
    if (verb == std::string("pull"))
      ImageBuilder(over("old/mid")).data(1, 't').build().write_to(folder / "top");
    else
      top.build().write_to(folder / "top");
    const auto run = [&](const std::vector<std::string>& command) {
      return run_coldchain_in(folder.path(), command);
    };
    const std::string before = read_file(folder / "top");
    REQUIRE(testing::interrupt_coldchain_in(folder.path(), {verb, "-f", "qcow2", "top"}).status ==
            130);
    const std::string pending = read_file(folder / "top.coldchain-pending");
    std::filesystem::rename(folder / "old", folder / "new");
    const Ran lost = run({"resume", "-f", "qcow2", "top"});
    CHECK(lost.status == 1);
    CHECK_MESSAGE(lost.err.find("old/mid") != std::string::npos, lost.err);
    CHECK_MESSAGE(lost.err.find("'coldchain resume --base PATH top'") != std::string::npos,
                  lost.err);
    std::filesystem::copy(folder / "new", folder / "copy");
    const Ran copied = run({"resume", "-f", "qcow2", "--base", "copy/mid", "top"});
    CHECK(copied.status == 1);
    CHECK((read_file(folder / "top.coldchain-pending") == pending));
    const Ran ran = run({"resume", "-f", "qcow2", "--base", "new/mid", "top"});
    CHECK_MESSAGE(ran.status == 0, ran.err);
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
    CHECK(run({"check", "top"}).status == (verb == std::string("pull") ? 0 : 1));
    CHECK((read_file(folder / "top") != before));
  }
}

TEST_CASE("resume: a pull whose base is only there as a copy is rolled back") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "old");
  ImageBuilder base(over(""));
  for (std::uint64_t cluster = 3; cluster < 5000; ++cluster)
    base.data(cluster, static_cast<std::uint8_t>(cluster % 251));
  base.build().write_to(folder / "old/base");
  ImageBuilder(over("old/base")).data(1, 't').build().write_to(folder / "top");
  const std::string before = read_file(folder / "top");
  REQUIRE(testing::interrupt_coldchain_in(folder.path(), {"pull", "-f", "qcow2", "top"}).status ==
          130);
  std::filesystem::copy(folder / "old", folder / "copy");
  std::filesystem::remove_all(folder / "old");
  const Ran ran = run_coldchain_in(
      folder.path(), {"resume", "--abandon", "-f", "qcow2", "--base", "copy/base", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK(read_file(folder / "top") == before);
}

TEST_CASE("resume: a commit whose base is lost or only there as a copy is rolled back") {
  for (const bool has_copy : {true, false}) {
    CAPTURE(has_copy);
    const TempFolder folder;
    std::filesystem::create_directory(folder / "old");
    ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "old/base");
    ImageBuilder top(over("old/base"));
    for (std::uint64_t cluster = 0; cluster < 4700; ++cluster)
      top.data(cluster, 't');
    top.build().write_to(folder / "top");
    const std::string before = read_file(folder / "top");
    REQUIRE(
        testing::interrupt_coldchain_in(folder.path(), {"commit", "-f", "qcow2", "top"}).status ==
        130);
    std::vector<std::string> command{"resume", "-f", "qcow2", "top"};
    if (has_copy) {
      std::filesystem::copy(folder / "old", folder / "copy");
      command.insert(command.begin() + 1, {"--base", "copy/base"});
    }
    std::filesystem::remove_all(folder / "old");
    // To continue it, the base itself is needed.
    CHECK(run_coldchain_in(folder.path(), command).status == 1);
    command.insert(command.begin() + 1, "--abandon");
    const Ran ran = run_coldchain_in(folder.path(), command);
    CHECK_MESSAGE(ran.status == 0, ran.err);
    CHECK_MESSAGE(ran.out.find("Its base was not found") != std::string::npos, ran.out);
    CHECK((read_file(folder / "top") == before));
    CHECK_FALSE(std::filesystem::exists(folder / "top.coldchain-pending"));
  }
}
