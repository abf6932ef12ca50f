// SPDX-License-Identifier: MIT
// Data that cannot be read is never data and never zeros: in no verb, unless the user says so.
#include "commit_scene.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "temp_folder.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::over;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

constexpr std::uint64_t cluster_size = 4096;
constexpr std::uint64_t clusters = 5000;
constexpr std::uint64_t missing = 100 * cluster_size + 1000;

// base <- mid <- top. The file of mid ends before its last 100 clusters, and inside another one.
class Scene {
 public:
  explicit Scene(std::uint64_t cut = missing) {
    ImageBuilder(over("")).data(0, 'b').build().write_to(folder_ / "base");
    ImageBuilder mid(over("base"));
    for (std::uint64_t cluster = 0; cluster < clusters; ++cluster)
      mid.data(cluster, 'm');
    testing::Patient patient(mid.build().flat());
    patient.move_to_end(clusters - 200, 200);
    patient.resize(patient.bytes().size() - cut);
    testing::write_file(path("mid"), patient.bytes());
    ImageBuilder(over("mid")).data(1, 't').build().write_to(path("top"));
  }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }
  [[nodiscard]] Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder(), arguments);
  }
  [[nodiscard]] std::string bytes() const {
    return read_file(path("base")) + read_file(path("mid")) + read_file(path("top"));
  }

 private:
  TempFolder folder_;
};

constexpr std::uint64_t lost_begin = clusters * cluster_size - missing;
constexpr std::uint64_t lost_end = clusters * cluster_size;

const nlohmann::json lost = {
    {{"start", lost_begin}, {"length", missing}, {"depth", 1}, {"reason", "past-end"}}};

}  // namespace

TEST_CASE("map: qemu-img's JSON stays whole, and each extent says what of it cannot be read") {
  const Scene cut;
  const Scene whole(0);
  const Ran ran = cut.run({"map", "--output=json", "top"});
  CHECK(ran.status == 0);
  CHECK_MESSAGE(
      ran.err.find("410600 bytes of guest data in 1 range cannot be read") != std::string::npos,
      ran.err);
  CHECK(ran.err.find("'coldchain check --list mid'") != std::string::npos);
  nlohmann::json extents = nlohmann::json::parse(ran.out);
  std::size_t told = 0;
  for (nlohmann::json& extent : extents) {
    if (!extent.contains("coldchain"))
      continue;
    ++told;
    CHECK(extent["coldchain"]["unreadable"] == lost);
    extent.erase("coldchain");
  }
  CHECK(told == 1);
  CHECK(extents == nlohmann::json::parse(whole.run({"map", "--output=json", "top"}).out));
}

TEST_CASE("map: every form says what cannot be read") {
  const Scene scene;
  const auto json = [&](const std::vector<std::string>& options) {
    std::vector<std::string> command{"map", "--output=json"};
    command.insert(command.end(), options.begin(), options.end());
    command.emplace_back("top");
    const Ran ran = scene.run(command);
    CHECK(ran.status == 0);
    CHECK_MESSAGE(ran.err.find("cannot be read") != std::string::npos, ran.err);
    return nlohmann::json::parse(ran.out);
  };
  bool has_lost = false;
  for (const nlohmann::json& extent : json({"--provenance"})) {
    if (!extent.contains("unreadable"))
      continue;
    has_lost = true;
    CHECK(extent["unreadable"] == "past-end");
    CHECK(extent["start"] == lost_begin);
    CHECK(extent["length"] == missing);
    CHECK(extent["zero"] == false);
  }
  CHECK(has_lost);
  CHECK(json({"--summary"})["layers"][1]["unreadable"] == missing);
  bool is_in_context = false;
  for (const nlohmann::json& extent : json({"--context", "base:allocation"}))
    is_in_context = is_in_context ||
                    (extent.contains("coldchain") && extent["coldchain"]["unreadable"] == lost);
  CHECK(is_in_context);
  const Ran text = scene.run({"map", "--provenance", "top"});
  CHECK_MESSAGE(text.out.find("unreadable") != std::string::npos, text.out);
}

TEST_CASE("map: behind a bad entry and a bad table the rest is mapped, and the status is 1") {
  const TempFolder folder;
  testing::Patient patient(ImageBuilder(over("")).data(0, 'a').data(5, 'b').build().flat());
  patient.set(patient.l2_entry(3), 0x10200);
  testing::write_file(folder / "entry", patient.bytes());
  patient.set(patient.l1_entry(1), 0x200);
  testing::write_file(folder / "table", patient.bytes());
  for (const char* name : {"entry", "table"}) {
    const Ran ran = run_coldchain_in(folder.path(), {"map", "--output=json", name});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find("host cluster offset is not aligned") != std::string::npos, ran.err);
    const auto extents = nlohmann::json::parse(ran.out);
    CHECK(extents.size() > 3);
    CHECK(extents.back()["start"].get<std::uint64_t>() +
              extents.back()["length"].get<std::uint64_t>() ==
          32 << 20);
  }
}

TEST_CASE("tree, info, measure: say what cannot be read, with qemu-img's status but for tree") {
  const Scene scene;
  const auto run = [&](const std::vector<std::string>& command, int status) {
    const Ran ran = scene.run(command);
    CHECK(ran.status == status);
    CHECK_MESSAGE((ran.err + ran.out).find("cannot be read") != std::string::npos, ran.err);
  };
  run({"tree", "top"}, 1);
  run({"info", "mid"}, 0);
  run({"info", "--backing-chain", "top"}, 0);
  run({"measure", "-O", "qcow2", "top"}, 0);
  CHECK(scene.run({"tree", "base"}).status == 0);
  const auto measured =
      nlohmann::json::parse(scene.run({"measure", "-O", "qcow2", "--output=json", "top"}).out);
  CHECK(measured["coldchain"]["unreadable"] == lost);
}

TEST_CASE("change: what needs data that cannot be read is refused with its range") {
  const Scene scene;
  const std::string before = scene.bytes();
  const std::vector<std::vector<std::string>> commands{
      {"pull", "top"},
      {"pull", "-b", "base", "top"},
      {"pull", "--decompress", "top"},
      {"pull", "--range", "19M:2M", "top"},
      {"rebase", "-b", "base", "-F", "qcow2", "top"},
      {"rebase", "-b", "", "top"},
      {"commit", "-b", "base", "top"},
      {"commit", "-d", "--force", "mid"},
      {"allocate", "top"},
      {"allocate", "--zero-fill", "top"}};
  for (std::vector<std::string> command : commands) {
    CAPTURE(command);
    for (const bool is_plan : {true, false}) {
      if (is_plan)
        command.insert(command.begin(), "plan");
      const Ran ran = scene.run(command);
      CHECK(ran.status == 1);
      CHECK_MESSAGE(ran.err.find("cannot be read") != std::string::npos, ran.err);
      CHECK_MESSAGE(
          ran.err.find(fmt::format("{:#x}-{:#x}", lost_begin, lost_end)) != std::string::npos,
          ran.err);
      CHECK_MESSAGE(ran.err.find("--unreadable=zeros") != std::string::npos, ran.err);
      CHECK((scene.bytes() == before));
      if (is_plan)
        command.erase(command.begin());
    }
  }
}

TEST_CASE("change: data that is not needed is not asked for") {
  const Scene scene;
  CHECK(scene.run({"rebase", "-u", "-b", "base", "-F", "qcow2", "top"}).status == 0);
  const Scene other;
  const Ran ran = other.run({"pull", "--range", "0:1M", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("change: --unreadable=zeros takes lost data as zeros, and lists it") {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"pull", "--unreadable=zeros", "--output=json", "top"},
        {"commit", "-d", "--force", "--unreadable=zeros", "--output=json", "mid"}}) {
    CAPTURE(command.front());
    const Scene scene;
    const Ran ran = scene.run(command);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
    const nlohmann::json done = nlohmann::json::parse(ran.out);
    CHECK(done["unreadable-bytes"] == missing);
    CHECK(done["unreadable"][0]["start"] == lost_begin);
    CHECK_MESSAGE(ran.err.find("is taken as zeros") != std::string::npos, ran.err);
    const std::string changed = command.front() == "pull" ? "top" : "base";
    CHECK(scene.run({"check", changed}).status == 0);
    const Ran map = scene.run({"map", "--output=json", changed});
    CHECK(map.status == 0);
    CHECK(map.err.empty());
  }
}

TEST_CASE("resume: what a command line allowed is not remembered") {
  const Scene scene;
  const auto interrupted =
      testing::interrupt_coldchain_in(scene.folder(), {"pull", "--unreadable=zeros", "top"});
  REQUIRE(interrupted.status == 1);
  const Ran refused = scene.run({"resume", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("--unreadable=zeros") != std::string::npos, refused.err);
  const Ran ran = scene.run({"resume", "--unreadable=zeros", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("resume: a change that may take no zeros can be rolled back") {
  const Scene scene;
  const std::string before = scene.bytes();
  REQUIRE(testing::interrupt_coldchain_in(scene.folder(), {"pull", "--unreadable=zeros", "top"})
              .status == 1);
  const Ran ran = scene.run({"resume", "--abandon", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK((scene.bytes() == before));
}

TEST_CASE("change: an image whose own data is cut does not grow over the place") {
  const Scene scene(1000);
  const Ran refused = scene.run({"pull", "mid"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("the file ends inside guest data") != std::string::npos,
                refused.err);
  const Ran ran = scene.run({"pull", "--unreadable=zeros", "mid"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK_MESSAGE(ran.err.find("is taken as zeros") != std::string::npos, ran.err);
}
