// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <chrono>
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

using Words = std::vector<std::string>;

// base <- top, and a plan in a file.
class Scene {
 public:
  Scene() {
    write("base", ImageBuilder(options("")).data(1, 'b'));
    write("top", ImageBuilder(options("base")).data(3, 't').data(4, 'u'));
  }
  Ran run(const Words& arguments) const { return run_coldchain_in(folder_.path(), arguments); }
  void write_plan(const Words& arguments) const {
    Words plan = arguments;
    plan.insert(plan.begin(), "plan");
    plan.push_back("--output=json");
    const Ran ran = run(plan);
    REQUIRE(ran.status == 0);
    write_text(ran.out);
  }
  void write_text(const std::string& text) const {
    testing::write_file(folder_ / "plan.json", text);
  }
  Ran apply() const { return run({"apply", "plan.json"}); }
  void write(const std::string& name, ImageBuilder builder) const {
    builder.build().write_to(folder_ / name);
  }
  static ImageOptions options(const std::string& backing) {
    ImageOptions options;
    options.size = 1 << 20;
    options.backing_file = backing;
    options.backing_format = backing.empty() ? "" : "qcow2";
    return options;
  }
  [[nodiscard]] std::string bytes() const {
    return read_file(folder_ / "base") + read_file(folder_ / "top");
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  // What apply says before it writes.
  [[nodiscard]] std::string written_by(const Words& command) const {
    std::string text = "coldchain: the plan writes to " + path("top") + "\n";
    if (command.front() == "commit")
      text += "coldchain: the plan writes to " + path("base") + "\n";
    return text;
  }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("apply: does to the images what the verb does, for every verb") {
  for (const Words& command : {Words{"commit", "top"},
                               {"commit", "-d", "top"},
                               {"pull", "top"},
                               {"rebase", "-b", "", "top"},
                               {"repair", "-r", "all", "top"}}) {
    CAPTURE(command.front());
    const Scene planned;
    planned.write_plan(command);
    const Scene done;
    REQUIRE(done.run(command).status == 0);
    const Ran ran = planned.apply();
    CHECK(ran.status == 0);
    CHECK(ran.err == planned.written_by(command));
    CHECK((planned.bytes() == done.bytes()));
    CHECK(!nlohmann::json::parse(ran.out).contains("command"));
  }
}

TEST_CASE("apply: writes nothing where the plan comes to something else by now") {
  for (const Words& command :
       {Words{"commit", "top"}, {"pull", "top"}, {"rebase", "-b", "", "top"}}) {
    CAPTURE(command.front());
    const Scene scene;
    scene.write_plan(command);
    scene.write("top", ImageBuilder(Scene::options("base")).data(3, 't').data(5, 'u').data(6, 'v'));
    scene.write("base", ImageBuilder(Scene::options("")).data(1, 'b').data(2, 'c'));
    const std::string before = scene.bytes();
    const Ran ran = scene.apply();
    CHECK(ran.status == 1);
    CHECK(ran.out == "");
    CHECK(ran.err.find("nothing was changed: /") != std::string::npos);
    CHECK(ran.err.find("make a new plan") != std::string::npos);
    CHECK((scene.bytes() == before));
  }
}

TEST_CASE("apply: a repair is not carried out on an image that is damaged in another way") {
  const Scene scene;
  scene.write("top",
              ImageBuilder(Scene::options("base")).data(3, 't').data(5, 'x').raw_entry(5, 0));
  scene.write_plan({"repair", "-r", "leaks", "top"});
  scene.write("top", ImageBuilder(Scene::options("base"))
                         .data(3, 't')
                         .data(5, 'x')
                         .raw_entry(5, 0)
                         .data(6, 'x')
                         .raw_entry(6, 0));
  const std::string before = scene.bytes();
  const Ran ran = scene.apply();
  CHECK(ran.status == 1);
  CHECK(ran.err.find("nothing was changed: /") != std::string::npos);
  CHECK((scene.bytes() == before));
}

TEST_CASE("apply: a plan that was changed by hand is not carried out") {
  const Scene scene;
  scene.write_plan({"commit", "top"});
  auto plan = nlohmann::json::parse(read_file(scene.path("plan.json")));
  plan["disk-size-after"] = 1;
  scene.write_text(plan.dump());
  const std::string before = scene.bytes();
  const Ran ran = scene.apply();
  CHECK(
      ran.err ==
      scene.written_by({"commit"}) +
          "coldchain: nothing was changed: /disk-size-after is 1 in the plan, but would be 1048576 "
          "now: make a new plan\n");
  CHECK((scene.bytes() == before));
}

TEST_CASE("apply: the command alone is not enough, whatever verb it is of") {
  const Scene scene;
  const std::string before = scene.bytes();
  for (const char* command :
       {R"(["commit", "top"])", R"(["pull", "top"])", R"(["rebase", "-b", "", "top"])",
        R"(["rebase", "-u", "-b", "", "top"])", R"(["repair", "top"])",
        R"(["check", "-r", "all", "top"])", R"(["apply", "plan.json"])",
        R"(["plan", "commit", "top"])", R"(["resume", "top"])", R"([])", R"([1])", R"("commit")"}) {
    CAPTURE(command);
    scene.write_text(std::string(R"({"command": )") + command + "}");
    const Ran ran = scene.apply();
    CHECK(ran.status == 1);
    CHECK(ran.err.starts_with("coldchain: "));
    CHECK((scene.bytes() == before));
  }
}

TEST_CASE("apply: what is no plan is told, by name") {
  const Scene scene;
  for (const std::string& text : Words{"", "x", "[]", "{}", std::string(200000, '['),
                                       "{\"command\": {}}", std::string(9, '\0')}) {
    scene.write_text(text);
    const Ran ran = scene.apply();
    CHECK(ran.status == 1);
    CHECK(ran.err.starts_with("coldchain: plan.json: is not a plan: "));
  }
  CHECK(scene.run({"apply", "nowhere"}).err == "coldchain: nowhere: No such file or directory\n");
}

TEST_CASE("apply: an image that was written to since is not what was planned") {
  for (const std::string image : {"base", "top"}) {
    const Scene scene;
    scene.write_plan({"commit", "top"});
    std::filesystem::last_write_time(
        scene.path(image),
        std::filesystem::last_write_time(scene.path(image)) + std::chrono::seconds(1));
    const std::string before = scene.bytes();
    const Ran ran = scene.apply();
    CHECK(ran.status == 1);
    CHECK(ran.err.find("nothing was changed: /") != std::string::npos);
    CHECK((scene.bytes() == before));
  }
}

TEST_CASE("apply: another change that is pending is not ended for it") {
  const Scene scene;
  scene.write_plan({"pull", "top"});
  const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
  REQUIRE(testing::interrupt_coldchain_in(folder, {"commit", "top"}).status != 0);
  const std::string before = scene.bytes();
  const Ran ran = scene.apply();
  CHECK(ran.status == 1);
  CHECK(ran.err.find("another change is pending in top: run 'coldchain resume " +
                     scene.path("top") + "' first") != std::string::npos);
  CHECK((scene.bytes() == before));
}

TEST_CASE("apply: a change that is pending is gone on with only if it is of the plan") {
  for (const Words& command : {Words{"commit", "top"}, {"pull", "top"}}) {
    CAPTURE(command.front());
    const Scene scene;
    scene.write_plan(command);
    auto plan = nlohmann::json::parse(read_file(scene.path("plan.json")));
    const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
    REQUIRE(testing::interrupt_coldchain_in(folder, command).status != 0);
    const std::string before = scene.bytes();
    const auto digest = std::exchange(plan["digest"], std::string(64, '0'));
    for (const bool has_digest : {true, false}) {
      scene.write_text(has_digest ? plan.dump()
                                  : nlohmann::json{{"command", plan["command"]}}.dump());
      const Ran ran = scene.apply();
      CHECK(ran.status == 1);
      CHECK(ran.err.find("the pending change is not the planned one") != std::string::npos);
      CHECK((scene.bytes() == before));
      CHECK(std::filesystem::exists(scene.path("top.coldchain-pending")));
    }
    plan["digest"] = digest;
    scene.write_text(plan.dump());
    CHECK(scene.apply().status == 0);
  }
}

TEST_CASE("apply: how much storage a file has may change by itself") {
  const Scene scene;
  scene.write_plan({"pull", "top"});
  auto plan = nlohmann::json::parse(read_file(scene.path("plan.json")));
  REQUIRE(!plan["not-needed"].empty());
  plan["not-needed"][0]["allocated"] = 1;
  scene.write_text(plan.dump());
  const Ran ran = scene.apply();
  CHECK_MESSAGE(ran.status == 0, ran.err);
}

TEST_CASE("apply: goes on with what it began") {
  const Scene scene;
  const Scene done;
  REQUIRE(done.run({"commit", "top"}).status == 0);
  scene.write_plan({"commit", "top"});
  const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
  const Ran stopped = testing::interrupt_coldchain_in(folder, {"apply", "plan.json"});
  REQUIRE(stopped.status != 0);
  REQUIRE(std::filesystem::exists(scene.path("top.coldchain-pending")));
  CHECK(scene.apply().status == 0);
  CHECK((scene.bytes() == done.bytes()));
}

TEST_CASE("apply: gives up nothing that was not planned") {
  const Scene scene;
  scene.write_plan({"commit", "top"});
  const std::string folder = std::filesystem::path(scene.path("top")).parent_path();
  REQUIRE(testing::interrupt_coldchain_in(folder, {"apply", "plan.json"}).status != 0);
  REQUIRE(std::filesystem::remove(scene.path("top.coldchain-pending")));
  const std::string before = scene.bytes();
  const Ran ran = scene.apply();
  CHECK(ran.status == 1);
  CHECK_MESSAGE(
      ran.err.find("nothing was changed: the rollback of a commit into base was interrupted") !=
          std::string::npos,
      ran.err);
  CHECK((scene.bytes() == before));
  CHECK(std::filesystem::exists(scene.path("base.coldchain-pending")));
}
