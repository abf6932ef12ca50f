// SPDX-License-Identifier: MIT
// Data that cannot be read is never data and never zeros: in no verb, unless the user says so.
#include "commit_scene.hpp"
#include "damage.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "temp_folder.hpp"

#include <span>

#include <coldchain/qcow2/tables.hpp>

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

Bytes bytes_in(const std::string& path) {
  const std::string content = read_file(path);
  const ByteView bytes = std::as_bytes(std::span(content));
  return {bytes.begin(), bytes.end()};
}

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

TEST_CASE("map: where QEMU takes the metadata for preallocated, the extents are its own, too") {
  const TempFolder folder;
  testing::ImageOptions options = over("");
  ImageBuilder builder(options);
  builder.data(0, 'a');
  for (std::uint64_t cluster = 1; cluster < 1000; ++cluster)
    builder.data_hole(cluster);
  testing::Patient patient(builder.build().flat());
  patient.move_to_end(500, 500);
  const auto map_of = [&](std::uint64_t cut) {
    testing::SparseBytes sparse;
    sparse.size = patient.bytes().size() - cut;
    for (std::uint64_t at = 0; at < sparse.size; at += cluster_size) {
      const auto begin = patient.bytes().begin() + static_cast<std::ptrdiff_t>(at);
      const Bytes piece(
          begin, begin + static_cast<std::ptrdiff_t>(std::min(cluster_size, sparse.size - at)));
      if (!is_zero(piece))
        sparse.pieces.emplace(at, piece);
    }
    sparse.write_to(folder / "image");
    nlohmann::json extents = nlohmann::json::parse(
        run_coldchain_in(folder.path(), {"map", "--output=json", "image"}).out);
    std::uint64_t lost_bytes = 0;
    for (nlohmann::json& extent : extents) {
      if (extent.contains("coldchain"))
        lost_bytes += extent["coldchain"]["unreadable"][0]["length"].get<std::uint64_t>();
      extent.erase("coldchain");
    }
    CHECK(lost_bytes == cut);
    return extents;
  };
  CHECK(map_of(300 * cluster_size + 77) == map_of(0));
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
  REQUIRE(interrupted.status == testing::status_of_interrupted);
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
              .status == testing::status_of_interrupted);
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

TEST_CASE("change: a source whose table the file ends inside is refused with what is missing") {
  const TempFolder folder;
  testing::write_file(folder / "base", testing::damage("last-l2-table-cut").image());
  ImageBuilder(over("base", 1 << 20)).data(1, 't').build().write_to(folder / "top");
  const auto run = [&](const std::vector<std::string>& command) {
    return run_coldchain_in(folder.path(), command);
  };
  CHECK(run({"check", "base"}).status == 2);
  CHECK(run({"map", "top"}).status == 1);
  const Ran refused = run({"pull", "top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("0x28000-") != std::string::npos, refused.err);
  const Ran own = run({"pull", "base"});
  CHECK(own.status == 1);
  CHECK_MESSAGE(own.err.find("damaged") != std::string::npos, own.err);
  const Ran ran = run({"pull", "--unreadable=zeros", "top"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK_MESSAGE(ran.err.find("is taken as zeros") != std::string::npos, ran.err);
}

TEST_CASE("tree, info: a compressed cluster that is cut in its last sector is no data") {
  const TempFolder folder;
  testing::write_file(folder / "base",
                      testing::damage("last-compressed-cluster-cut-in-its-last-sector").image());
  ImageBuilder(over("base", 1 << 20)).data(1, 't').build().write_to(folder / "top");
  for (const std::string name : {"base", "top"}) {
    const Ran tree = run_coldchain_in(folder.path(), {"tree", name});
    CHECK(tree.status == 1);
    CHECK_MESSAGE(tree.out.find("4096 bytes of guest data cannot be read") != std::string::npos,
                  tree.out);
  }
  const Ran info = run_coldchain_in(folder.path(), {"info", "base"});
  CHECK(info.status == 0);
  CHECK_MESSAGE(info.err.find("4096 bytes of guest data") != std::string::npos, info.err);
}

// Such a stream may decompress to other data once the file has grown.
TEST_CASE("change: a compressed cluster that is cut in its last sector is never copied") {
  const Bytes cut = testing::damage("last-compressed-cluster-cut-in-its-last-sector").image();
  constexpr std::uint64_t at = 32 * cluster_size;
  const auto make = [&](const TempFolder& folder) {
    testing::write_file(folder / "base", cut);
    ImageBuilder(over("base", 1 << 20)).data(1, 't').build().write_to(folder / "top");
  };
  for (const std::vector<std::string>& command : {std::vector<std::string>{"pull", "top"},
                                                  {"pull", "--decompress", "top"},
                                                  {"pull", "--recompress", "top"},
                                                  {"pull", "--detect-zeroes", "top"},
                                                  {"rebase", "-b", "", "top"},
                                                  {"commit", "top"}}) {
    CAPTURE(command);
    const TempFolder folder;
    make(folder);
    CHECK(run_coldchain_in(folder.path(), {"check", "base"}).status == 2);
    const Ran refused = run_coldchain_in(folder.path(), command);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("0x20000") != std::string::npos, refused.err);
    std::vector<std::string> allowed = command;
    allowed.insert(allowed.begin() + 1, "--unreadable=zeros");
    const Ran ran = run_coldchain_in(folder.path(), allowed);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
    CHECK_MESSAGE(ran.err.find("is taken as zeros") != std::string::npos, ran.err);
    const std::string changed = folder / (command.front() == "commit" ? "base" : "top");
    const Ran map = run_coldchain_in(folder.path(), {"map", "--output=json", changed});
    CHECK(map.status == 0);
    CHECK_MESSAGE(map.err.empty(), map.err);
    bool is_zero = false;
    for (const nlohmann::json& extent : nlohmann::json::parse(map.out)) {
      if (extent["start"] <= at &&
          extent["start"].get<std::uint64_t>() + extent["length"].get<std::uint64_t>() > at)
        is_zero = extent["zero"];
    }
    CHECK(is_zero);
    CHECK(run_coldchain_in(folder.path(), {"check", "--deep", changed}).status == 0);
  }
}

TEST_CASE(
    "change: where a cut compressed cluster cannot become zeros, the command to run is said") {
  const TempFolder folder;
  testing::ImageOptions old = over("", 1 << 20);
  old.version = 2;
  testing::Patient patient(ImageBuilder(old).compressed(0, 'c').build().flat());
  const std::uint64_t end = patient.bytes().size();
  patient.resize(end + 8);  // zeros alone, which end no stream
  patient.set_refcount(end / cluster_size, 1);
  patient.set(patient.l2_entry(32), 1ULL << 62 | end);
  testing::write_file(folder / "base", patient.bytes());
  ImageBuilder(over("base", 1 << 20)).data(1, 't').build().write_to(folder / "top");
  const std::string before = read_file(folder / "base");
  const Ran ran = run_coldchain_in(folder.path(), {"commit", "--unreadable=zeros", "top"});
  CHECK(ran.status == 1);
  CHECK_MESSAGE(ran.err.find("qemu-io -c \"write -z 0x20000 4096\" FILE") != std::string::npos,
                ran.err);
  CHECK(read_file(folder / "base") == before);
}

TEST_CASE("repair: a compressed cluster that is cut reads as zeros once the file has grown") {
  const TempFolder folder;
  testing::Patient patient(
      testing::damage("last-compressed-cluster-cut-in-its-last-sector").image());
  patient.set(patient.refcount_table_entry(), 0);  // a new block goes behind the end
  testing::write_file(folder / "image", patient.bytes());
  const Ran ran = run_coldchain_in(folder.path(), {"check", "-r", "all", "image"});
  CHECK_MESSAGE(ran.err.find("guest 0x20000-0x21000 (read as zeros") != std::string::npos, ran.err);
  CHECK_MESSAGE(ran.out.find("They may hold lost data") != std::string::npos, ran.out);
  CHECK(ran.out.find("no harm to data") == std::string::npos);
  // What is left of the stream keeps its refcount.
  CHECK(run_coldchain_in(folder.path(), {"check", "--deep", "image"}).status == 3);
}

TEST_CASE("commit: zeros above lost data are written, whatever the base shows there") {
  const TempFolder folder;
  testing::Patient patient(
      ImageBuilder(over("", 1 << 20)).data(0, 'a').data(1, 'a').build().flat());
  patient.move_to_end(0, 2);
  const Bytes whole = patient.bytes();
  patient.resize(whole.size() - cluster_size - 1000);
  ImageBuilder(over("lowest", 1 << 20)).build().write_to(folder / "base");
  ImageBuilder(over("base", 1 << 20)).zero(0).zero(1).data(3, 't').build().write_to(folder / "top");
  testing::write_file(folder / "lowest", patient.bytes());
  const Ran ran = run_coldchain_in(folder.path(), {"commit", "--unreadable=zeros", "-d", "top"});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  testing::write_file(folder / "lowest", whole);
  const auto extents =
      nlohmann::json::parse(run_coldchain_in(folder.path(), {"map", "--output=json", "base"}).out);
  CHECK(extents[0]["zero"] == true);
  CHECK(extents[0]["depth"] == 0);
  CHECK(extents[0]["length"] == 2 * cluster_size);
}

TEST_CASE("repair: subclusters that were not allocated still show the backing file") {
  const TempFolder folder;
  testing::ImageOptions options = over("base", 1 << 20);
  options.cluster_bits = 14;
  ImageBuilder(over("", 1 << 20)).data(0, 'b').build().write_to(folder / "base");
  options.extended_l2 = true;
  testing::Patient patient(ImageBuilder(options).subclusters(0, 0b110, 0, 't').build().flat());
  patient.set(patient.l2_entry(0), 1ULL << 40 | qcow2::copied_flag);
  testing::write_file(folder / "image", patient.bytes());
  const Ran ran = run_coldchain_in(folder.path(), {"repair", "image"});
  CHECK_MESSAGE(
      ran.err.find("lost for good: guest 0x200-0x600 (read as zeros") != std::string::npos,
      ran.err);
  const testing::Patient after(bytes_in(folder / "image"));
  CHECK(after.at(after.l2_entry(0)) == 0);
  CHECK(after.at(after.subclusters(0)) == 0b110ULL << 32);
}

TEST_CASE("repair: in version 2, an entry over a backing file is not dropped") {
  const TempFolder folder;
  testing::ImageOptions options = over("base", 1 << 20);
  options.version = 2;
  ImageBuilder(over("", 1 << 20)).data(0, 'b').build().write_to(folder / "base");
  testing::Patient patient(ImageBuilder(options).data(0, 't').build().flat());
  patient.set(patient.l2_entry(0), 1ULL << 40 | qcow2::copied_flag);
  testing::write_file(folder / "image", patient.bytes());
  const Ran ran = run_coldchain_in(folder.path(), {"repair", "image"});
  CHECK(ran.status == 2);
  CHECK_MESSAGE(ran.err.find("not repaired: reference-past-end") != std::string::npos, ran.err);
  const testing::Patient after(bytes_in(folder / "image"));
  CHECK((after.at(after.l2_entry(0)) & qcow2::offset_mask) == 1ULL << 40);
}

TEST_CASE("pull: where nothing changes, nothing is taken as zeros") {
  const Scene scene(1000);
  ImageBuilder(over("", 1 << 20)).data(0, 'a').build().write_to(scene.path("alone"));
  testing::Patient patient(bytes_in(scene.path("alone")));
  patient.move_to_end(0, 1);
  patient.resize(patient.bytes().size() - 100);
  testing::write_file(scene.path("alone"), patient.bytes());
  const Ran ran = scene.run({"pull", "--unreadable=zeros", "alone"});
  CHECK_MESSAGE(ran.status == 0, ran.err);
  CHECK_MESSAGE(ran.err.find("taken as zeros") == std::string::npos, ran.err);
}
