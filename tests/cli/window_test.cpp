// SPDX-License-Identifier: MIT
// Images in a part of a file: json: names with the raw driver's offset and size below qcow2.
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

ImageOptions over(const std::string& backing) {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 1 << 20;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : "qcow2";
  return options;
}

// The image `inner`, from 1 MiB on in the file `outer`; and `top`, which it backs.
class Scene {
 public:
  Scene() {
    ImageBuilder(over("")).data(1, 'b').data(5, 'b').build().write_to(folder_ / "inner");
    testing::write_file(folder_ / "outer",
                        std::string(1 << 20, 'x') + read_file(folder_ / "inner"));
    ImageBuilder(over(name)).data(2, 't').build().write_to(folder_ / "top");
    outer_ = read_file(folder_ / "outer");
    top_ = read_file(folder_ / "top");
  }

  [[nodiscard]] Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder_.path(), arguments);
  }
  [[nodiscard]] bool is_untouched() const {
    return read_file(folder_ / "outer") == outer_ && read_file(folder_ / "top") == top_;
  }

  static constexpr const char* name =
      R"(json:{"driver":"qcow2","file":{"driver":"raw","offset":1048576,"file":{"driver":"file","filename":"outer"}}})";

 private:
  TempFolder folder_;
  std::string outer_;
  std::string top_;
};

}  // namespace

TEST_CASE("window: an image in a part of a file is read as one in a file of its own") {
  const Scene scene;
  for (const std::vector<std::string>& verb :
       std::vector<std::vector<std::string>>{{"map", "--output=json"},
                                             {"map", "--summary"},
                                             {"check"},
                                             {"layout"},
                                             {"measure", "-O", "raw"}}) {
    CAPTURE(verb.front());
    std::vector<std::string> whole = verb;
    std::vector<std::string> part = verb;
    whole.emplace_back("inner");
    part.emplace_back(Scene::name);
    const Ran expected = scene.run(whole);
    const Ran found = scene.run(part);
    CHECK(found.status == 0);
    std::string text = found.out;
    for (std::size_t at = text.find("outer"); at != std::string::npos; at = text.find("outer"))
      text.replace(at, 5, "inner");
    CHECK(text == expected.out);
  }
  CHECK(scene.run({"check", "top"}).status == 0);
  CHECK(scene.run({"map", "top"}).out.find("json:{\"offset\": 1048576, \"driver\": \"raw\", ") !=
        std::string::npos);
  CHECK(scene.run({"tree", "."}).out.find("unreadable") == std::string::npos);
  CHECK(scene.is_untouched());
}

TEST_CASE("window: an image in a part of a file is not written, nor one whose chain has one") {
  const Scene scene;
  const std::string name = Scene::name;
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"check", "-r", "all", name},
                                             {"check", "-r", "all", "--dry-run", name},
                                             {"rebase", "-u", "-b", "inner", "-F", "qcow2", name},
                                             {"allocate", name},
                                             {"plan", "allocate", name},
                                             {"pull", name},
                                             {"commit", "top"},
                                             {"plan", "commit", "top"},
                                             {"pull", "top"},
                                             {"plan", "pull", "top"},
                                             {"rebase", "-b", "inner", "-F", "qcow2", "top"}}) {
    CAPTURE(command[0]);
    const Ran ran = scene.run(command);
    CHECK(ran.status == 1);
    CHECK(ran.err.find("it is a window of a file ('offset' or 'size' of the raw driver), which is "
                       "only read: copy it into a file of its own") != std::string::npos);
  }
  CHECK(scene.is_untouched());
}

TEST_CASE("window: two parts of one file may back each other unless they overlap") {
  const TempFolder folder;
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "base");
  const std::string base = read_file(folder / "base");
  const auto part = [](std::uint64_t offset, std::uint64_t size) {
    return fmt::format(
        R"(json:{{"driver":"qcow2","file":{{"driver":"raw","offset":{},"size":{},"file.filename":"both"}}}})",
        offset, size);
  };
  ImageBuilder(over(part(0, base.size()))).data(2, 't').build().write_to(folder / "top");
  const std::string top = read_file(folder / "top");
  testing::write_file(folder / "both", base + top);
  const Ran apart = run_coldchain_in(folder.path(), {"tree", part(base.size(), top.size())});
  CHECK(apart.status == 0);
  CHECK(apart.err == "");
  testing::write_file(folder / "both", top);
  const Ran itself = run_coldchain_in(folder.path(), {"tree", "both"});
  CHECK(itself.out.find("link-loop") != std::string::npos);
}
