// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <algorithm>
#include <filesystem>

#include <coldchain/io/lock.hpp>
#include <coldchain/io/open.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

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
  options.size = 32 << 20;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : "qcow2";
  return options;
}

// base <- mid <- top, with more than one piece of data in mid; 18 clusters of it are zeros.
class Scene {
 public:
  Scene() {
    ImageBuilder(over("")).data(1, 'b').data(5000, 'b').build().write_to(folder_ / "base");
    ImageBuilder mid(over("base"));
    for (std::uint64_t cluster = 0; cluster < 4500; ++cluster)
      mid.data(cluster, static_cast<std::uint8_t>(cluster % 251));
    mid.zero(5000).build().write_to(folder_ / "mid");
    ImageBuilder(over("mid")).data(3, 't').build().write_to(folder_ / "top");
    before_ = read_file(folder_ / "top");
  }
  Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder_.path(), arguments);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string top() const { return read_file(folder_ / "top"); }
  [[nodiscard]] bool is_as_before() const { return top() == before_; }
  [[nodiscard]] bool is_pending() const {
    return std::filesystem::exists(folder_ / "top.coldchain-pending");
  }
  Ran interrupt(const std::vector<std::string>& arguments) const {
    return testing::interrupt_coldchain_in(folder_.path(), arguments);
  }

 private:
  TempFolder folder_;
  std::string before_;
};

}  // namespace

TEST_CASE("pull: does what its plan says, which writes nothing") {
  const Scene scene;
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"-b", "base"}, {}}) {
    std::vector<std::string> arguments = {"pull", "--output=json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.push_back("top");
    std::vector<std::string> plan = arguments;
    plan.insert(plan.begin(), "plan");
    const std::string bytes = scene.top();
    auto promised = nlohmann::json::parse(scene.run(plan).out);
    CHECK((scene.top() == bytes));
    CHECK(promised["is-plan"] == true);
    auto done = nlohmann::json::parse(scene.run(arguments).out);
    promised["is-plan"] = false;
    promised.erase("command");
    promised.erase("images");
    CHECK(done == promised);
    CHECK(done["size-after"] == scene.top().size());
    CHECK(scene.run({"check", "top"}).status == 0);
    CHECK_FALSE(scene.is_pending());
  }
  const auto info = nlohmann::json::parse(scene.run({"info", "--output=json", "top"}).out);
  CHECK_FALSE(info.contains("backing-filename"));
}

TEST_CASE("pull: what makes no sense or is not safe is refused, and nothing is changed") {
  const Scene scene;
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& why) {
    const Ran ran = scene.run(arguments);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
    CHECK(scene.is_as_before());
    CHECK_FALSE(scene.is_pending());
  };
  refused({"pull", "-b", "top", "top"}, "is not below");
  refused({"pull", "-b", "none", "top"}, "none");
  refused({"pull", "-f", "raw", "top"}, "only a qcow2 image has a backing file");
  refused({"plan"}, "");
  testing::Patient patient([&] {
    const std::string text = scene.top();
    const ByteView bytes = text_bytes(text);
    return Bytes(bytes.begin(), bytes.end());
  }());
  patient.set_refcount(patient.host_cluster(3), 0);
  testing::write_file(scene.path("damaged"), patient.bytes());
  refused({"pull", "damaged"}, "coldchain check -r all");
}

TEST_CASE("pull: one that is done already, or has nothing to do, changes nothing and succeeds") {
  const Scene scene;
  const auto does_nothing = [&](const std::vector<std::string>& arguments) {
    const std::string before = scene.top();
    const Ran ran = scene.run(arguments);
    CHECK(ran.status == 0);
    CHECK(ran.out.find("Nothing had to be done.") != std::string::npos);
    CHECK((scene.top() == before));
  };
  does_nothing({"pull", "-b", "mid", "top"});
  does_nothing({"pull", "base"});
  for (const std::vector<std::string>& pull :
       std::vector<std::vector<std::string>>{{"pull", "-b", "base", "top"}, {"pull", "top"}}) {
    REQUIRE(scene.run(pull).status == 0);
    does_nothing(pull);
  }
}

TEST_CASE("pull: an internal snapshot that reads through what would go is in the way") {
  const Scene scene;
  ImageBuilder(over("mid"))
      .data(3, 't')
      .snapshot("1", "before")
      .data(4, 'n')
      .build()
      .write_to(scene.path("snapped"));
  const Ran refused = scene.run({"pull", "snapped"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("1 (before)") != std::string::npos);
  CHECK(refused.err.find("--snapshots") != std::string::npos);
  const Ran forced = scene.run({"pull", "--force", "snapped"});
  CHECK(forced.status == 0);
  CHECK(forced.err.find("1 (before) reads different data") != std::string::npos);
  CHECK(scene.run({"check", "snapped"}).status == 0);
}

TEST_CASE("pull: of two internal snapshots with the same ID none is overlooked") {
  const Scene scene;
  ImageBuilder(over("mid"))
      .data(3, 't')
      .snapshot("1", "one")
      .data(4, 'n')
      .snapshot("1", "two")
      .build()
      .write_to(scene.path("snapped"));
  const std::string before = read_file(scene.path("snapped"));
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"pull", "snapped"}, {"pull", "--snapshots", "snapped"}, {"commit", "snapped"}}) {
    const Ran refused = scene.run(command);
    CHECK(refused.status == 1);
    // Of the image that has them, whatever would be written to.
    CHECK_MESSAGE(
        refused.err.starts_with("coldchain: snapped: has two internal snapshots with the ID '1'"),
        refused.err);
  }
  CHECK((read_file(scene.path("snapped")) == before));
}

TEST_CASE("pull: with --snapshots internal snapshots get what they read, also after a stop") {
  const auto make = [](const Scene& scene) {
    ImageBuilder(over("mid"))
        .data(3, 't')
        .snapshot("1", "before")
        .data(4, 'n')
        .build()
        .write_to(scene.path("top"));
  };
  const auto seen = [](const Scene& scene) {
    return scene.run({"map", "--snapshot", "1", "top"}).out;
  };
  const Scene whole;
  make(whole);
  const Ran pulled = whole.run({"pull", "--snapshots", "top"});
  CHECK_MESSAGE(pulled.status == 0, pulled.err);
  CHECK(pulled.out.find("internal snapshot 1 (before), too") != std::string::npos);
  CHECK(seen(whole).find("mid") == std::string::npos);
  for (const std::vector<std::string>& next : std::vector<std::vector<std::string>>{
           {"pull", "-q", "--snapshots", "top"}, {"resume", "top"}}) {
    const Scene scene;
    make(scene);
    REQUIRE(scene.interrupt({"pull", "--snapshots", "top"}).status ==
            testing::status_of_interrupted);
    CHECK(scene.run({"pull", "--force", "top"}).err.find("other options is pending") !=
          std::string::npos);
    CHECK(scene.run(next).status == 0);
    CHECK((scene.top() == whole.top()));
    CHECK(scene.run({"check", "top"}).status == 0);
  }
}

TEST_CASE("pull: one that was stopped goes on with the same command or resume, or is given up") {
  const Scene whole;
  REQUIRE(whole.run({"pull", "-q", "top"}).status == 0);
  for (const std::vector<std::string>& next :
       std::vector<std::vector<std::string>>{{"pull", "-q", "top"}, {"resume", "top"}}) {
    const Scene scene;
    const Ran stopped = scene.interrupt({"pull", "top"});
    CHECK(stopped.status == testing::status_of_interrupted);
    CHECK(stopped.err.find("interrupted") != std::string::npos);
    CHECK(stopped.err.find("coldchain resume") != std::string::npos);
    REQUIRE(scene.is_pending());
    CHECK(scene.run({"check", "top"}).err.find("coldchain resume " + scene.path("top")) !=
          std::string::npos);
    CHECK(scene.run({"check", "-r", "all", "top"}).err.find("is pending") != std::string::npos);
    CHECK(scene.run({"pull", "-b", "base", "top"}).err.find("another base") != std::string::npos);
    CHECK(scene.run(next).status == 0);
    CHECK((scene.top() == whole.top()));
    CHECK_FALSE(scene.is_pending());
  }
  const Scene scene;
  REQUIRE(scene.interrupt({"pull", "top"}).status == testing::status_of_interrupted);
  CHECK(scene.run({"resume", "--abandon", "top"}).status == 0);
  CHECK(scene.is_as_before());
  CHECK_FALSE(scene.is_pending());
}

TEST_CASE("pull: compressed clusters stay so, become so again or not, after a stop too") {
  struct Case {
    std::string option;
    unsigned cluster_bits;    // of the layer; the image has 12
    int compressed_clusters;  // of the image afterwards
  };
  for (const Case& some : std::vector<Case>{{"", 12, 4499},
                                            {"--decompress", 12, 0},
                                            {"--recompress", 12, 4499},
                                            {"", 11, 0},
                                            {"--recompress", 11, 2249},
                                            {"--recompress", 13, 8191}}) {
    CAPTURE(some.option);
    CAPTURE(some.cluster_bits);
    const auto make = [bits = some.cluster_bits](const Scene& scene) {
      ImageOptions options = over("base");
      options.cluster_bits = bits;
      ImageBuilder mid(options);
      for (std::uint64_t cluster = 0; cluster < std::min<std::uint64_t>(4500, options.size >> bits);
           ++cluster)
        mid.compressed(cluster, static_cast<std::uint8_t>(cluster % 251));
      mid.build().write_to(scene.path("mid"));
    };
    std::vector<std::string> command = {"pull", "-q", "top"};
    if (!some.option.empty())
      command.insert(command.begin() + 1, some.option);
    const std::vector<std::string> other = {
        "pull", "-q", some.option == "--decompress" ? "--recompress" : "--decompress", "top"};
    const Scene whole;
    make(whole);
    REQUIRE(whole.run(command).status == 0);
    const Ran checked = whole.run({"check", "--deep", "--output=json", "top"});
    CHECK(checked.status == 0);
    CHECK(nlohmann::json::parse(checked.out).value("compressed-clusters", 0) ==
          some.compressed_clusters);
    for (const std::vector<std::string>& next :
         std::vector<std::vector<std::string>>{command, {"resume", "top"}}) {
      const Scene scene;
      make(scene);
      REQUIRE(scene.interrupt(command).status == testing::status_of_interrupted);
      CHECK(scene.run(other).err.find("other options is pending") != std::string::npos);
      CHECK(scene.run(next).status == 0);
      CHECK((scene.top() == whole.top()));
    }
  }
}

TEST_CASE("pull: a part of the disk is not compressed") {
  const Scene scene;
  const Ran refused = scene.run({"pull", "--recompress", "--range=0:1M", "top"});
  CHECK(refused.status == 1);
  CHECK(scene.is_as_before());
}

TEST_CASE("pull: a compressed cluster that its file has no bytes of is not taken along") {
  const Scene scene;
  ImageBuilder mid(over("base"));
  const std::uint64_t behind = (1ULL << 30) + 100;
  mid.raw_entry(7, qcow2::compressed_flag | behind).build().write_to(scene.path("mid"));
  const Ran refused = scene.run({"pull", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("mid") != std::string::npos, refused.err);
}

TEST_CASE("pull: with --detect-zeroes data that is zeros takes no place, also after a stop") {
  const auto added = [](const Ran& planned) -> std::uint64_t {
    return nlohmann::json::parse(planned.out)["added-clusters"]["data"];
  };
  const Scene whole;
  CHECK(added(whole.run({"plan", "pull", "--output=json", "--detect-zeroes", "top"})) + 18 ==
        added(whole.run({"plan", "pull", "--output=json", "top"})));
  REQUIRE(whole.run({"pull", "-q", "--detect-zeroes", "top"}).status == 0);
  for (const std::vector<std::string>& next : std::vector<std::vector<std::string>>{
           {"pull", "-q", "--detect-zeroes", "top"}, {"resume", "top"}}) {
    const Scene scene;
    REQUIRE(scene.interrupt({"pull", "--detect-zeroes", "top"}).status ==
            testing::status_of_interrupted);
    CHECK(scene.run({"pull", "top"}).err.find("other options is pending") != std::string::npos);
    CHECK(scene.run(next).status == 0);
    CHECK((scene.top() == whole.top()));
  }
}

TEST_CASE("pull: one that was stopped goes on whatever the page cache has of reserved extents") {
  const Scene scene;
  testing::write_file(scene.path("mid"), std::string(12 << 20, 'r'));
  const int fd = ::open(scene.path("mid").c_str(), O_RDWR | O_CLOEXEC);
  (void)::fallocate(fd, 0, 12 << 20, 20 << 20);  // where the system can do that
  ::close(fd);
  ImageOptions options = over("mid");
  options.backing_format = "raw";
  ImageBuilder(options).data(0, 't').build().write_to(scene.path("top"));
  REQUIRE(scene.interrupt({"pull", "top"}).status == testing::status_of_interrupted);
  CHECK(read_file(scene.path("mid")).size() == 32 << 20);  // all of it is in the cache now
  const Ran resumed = scene.run({"resume", "top"});
  CHECK_MESSAGE(resumed.status == 0, resumed.err);
}

TEST_CASE("pull: one that was stopped does not go on where the chain was changed meanwhile") {
  const Scene scene;
  REQUIRE(scene.interrupt({"pull", "top"}).status == testing::status_of_interrupted);
  std::filesystem::last_write_time(scene.path("mid"),
                                   std::filesystem::file_time_type::clock::now());
  const Ran ran = scene.run({"resume", "top"});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("--abandon") != std::string::npos);
  CHECK(scene.run({"resume", "--abandon", "top"}).status == 0);
  CHECK(scene.is_as_before());
}

TEST_CASE("pull: with another base than one that is pending is not taken for that one") {
  const Scene scene;
  REQUIRE(scene.interrupt({"pull", "-b", "base", "top"}).status == testing::status_of_interrupted);
  const Ran other = scene.run({"pull", "top"});
  CHECK(other.status == 1);
  CHECK(other.err.find("with another base or other options is pending") != std::string::npos);
  CHECK(scene.run({"resume", scene.path("top")}).status == 0);  // however it is spelled
  CHECK(scene.run({"pull", "-q", "top"}).status == 0);
  CHECK_FALSE(scene.is_pending());
}

TEST_CASE("pull: a layer or image that another process writes to ends with status 4") {
  const Scene scene;
  for (const std::string name : {"base", "mid", "top"}) {
    const auto files = io::system_files({}).value();
    const auto held = testing::open_for_writing(scene.path(name));
    REQUIRE(io::hold_write_locks(*held).has_value());
    CHECK(scene.run({"pull", "top"}).status == 4);
    CHECK(scene.run({"pull", "-b", "base", "top"}).status == 4);
    CHECK(scene.is_as_before());
  }
}

TEST_CASE("pull: a chain that is typed, and not what the image records, is refused") {
  const Scene scene;
  ImageBuilder(over("")).data(7, 'o').build().write_to(scene.path("other"));
  const std::string top = "driver=qcow2,file.filename=top";
  const Ran refused = scene.run(
      {"pull", "--image-opts", top + ",backing.driver=qcow2,backing.file.filename=other"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("not the one that") != std::string::npos);
  CHECK(scene.is_as_before());
  CHECK(scene.run({"pull", "-q", "--image-opts", top}).status == 0);
}

namespace {

// Folders a and b: base <- a/mid <- b/top, all names relative.
class Folders {
 public:
  explicit Folders(const std::string& base_in_mid = "../c/base") {
    for (const char* name : {"a", "b", "c"})
      std::filesystem::create_directory(folder_ / name);
    ImageBuilder(over("")).data(1, 'b').data(5, 'b').build().write_to(folder_ / "c/base");
    ImageOptions mid = over(base_in_mid);
    if (base_in_mid.starts_with("json:"))
      mid.backing_format = "raw";
    ImageBuilder(mid).data(3, 'm').build().write_to(folder_ / "a/mid");
    ImageBuilder(over("../a/mid")).data(7, 't').build().write_to(folder_ / "b/top");
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] Ran pull(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"pull", "--output=json", "-f", "qcow2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_coldchain_in(folder_.path(), arguments);
  }
  static std::string link(const Ran& pulled) {
    REQUIRE_MESSAGE(pulled.status == 0, pulled.err);
    return nlohmann::json::parse(pulled.out)["backing-filename"];
  }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("pull: the link is the recorded name where that leads to the base, else where it lies") {
  CHECK(Folders::link(Folders().pull({"-b", "c/base", "b/top"})) == "../c/base");
  const Folders other("../c/./base");
  CHECK(Folders::link(other.pull({"-b", "c/base", "b/top"})) == "../c/./base");
  // What the recorded name leads to from the image's folder is another file, or none.
  for (const bool has_another : {false, true}) {
    const Folders beside("base");
    std::filesystem::rename(beside / "c/base", beside / "a/base");
    if (has_another)
      std::filesystem::copy_file(beside / "a/base", beside / "b/base");
    CHECK(Folders::link(beside.pull({"-b", "a/base", "b/top"})) ==
          std::filesystem::canonical(beside / "a/base").string());
  }
}

TEST_CASE("pull: a link that leads elsewhere by the image's own name is not written") {
  // By the name that is given, b/top lies in d; by its own, in b.
  const Folders scene("base");
  std::filesystem::rename(scene / "c/base", scene / "a/base");
  std::filesystem::create_directory(scene / "d");
  std::filesystem::create_symlink(scene / "b/top", scene / "d/top");
  std::filesystem::create_symlink(scene / "a/base", scene / "d/base");
  CHECK(Folders::link(scene.pull({"-b", "a/base", "d/top"})) ==
        std::filesystem::canonical(scene / "a/base").string());
}

TEST_CASE("pull: a base that is a part of its file is recorded as such") {
  const Folders scene(
      R"(json:{"driver":"raw","offset":4096,"file":{"driver":"file","filename":"../c/base"}})");
  testing::write_file(scene / "c/base", std::string((32 << 20) + 4096, 'r'));
  const std::string link = Folders::link(scene.pull({"-b", "c/base", "b/top"}));
  CHECK(link.find("4096") != std::string::npos);
}

TEST_CASE("pull: with --sysroot no name of the host gets into the image") {
  const Folders scene("base");
  std::filesystem::rename(scene / "c/base", scene / "a/base");
  // What mid records leads elsewhere from b; inside the sysroot this is the path of the base.
  CHECK(Folders::link(scene.pull({"--sysroot", ".", "-b", "a/base", "b/top"})) == "/a/base");
  const std::string before = read_file(scene / "b/top");
  const Ran outside = scene.pull({"--sysroot", "c", "b/top"});
  CHECK(outside.status == 1);
  CHECK(outside.err.find("lies outside the sysroot") != std::string::npos);
  CHECK((read_file(scene / "b/top") == before));
}
