// SPDX-License-Identifier: MIT
#include "commit_scene.hpp"
#include "oracle.hpp"
#include "patient.hpp"

#include <chrono>
#include <filesystem>

#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>

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

void check_refused(const Scene& scene, const std::vector<std::string>& arguments,
                   const std::string& why) {
  const Ran ran = scene.run(arguments);
  CHECK(ran.status == 1);
  CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
  CHECK(scene.is_as_before());
  CHECK_FALSE(scene.is_pending());
}

}  // namespace

TEST_CASE("commit: does what its plan says, which writes nothing") {
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"-b", "base"}, {"-d"}, {}}) {
    const Scene scene;
    std::vector<std::string> arguments = {"commit", "--output=json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.push_back("top");
    std::vector<std::string> plan = arguments;
    plan.insert(plan.begin(), "plan");
    auto promised = nlohmann::json::parse(scene.run(plan).out);
    CHECK(scene.is_as_before());
    CHECK(promised["is-plan"] == true);
    auto done = nlohmann::json::parse(scene.run(arguments).out);
    promised["is-plan"] = false;
    promised.erase("command");
    promised.erase("images");
    CHECK(done == promised);
    CHECK(scene.run({"check", "--backing-chain", "top"}).status == 0);
    CHECK_FALSE(scene.is_pending());
    CHECK(done.contains("emptied") == more.empty());
    CHECK(done["stale"].size() == (more.size() == 2 ? 1 : 0));
  }
}

TEST_CASE("commit: prints what qemu-img prints, and nothing with -q") {
  const Scene scene;
  CHECK(scene.run({"commit", "-p", "-t", "none", "-r", "1G", "top"}).out == "Image committed.\n");
  const Ran again = scene.run({"commit", "-q", "top"});
  CHECK(again.status == 0);
  CHECK(again.out.empty());
  CHECK(again.err.empty());
}

TEST_CASE("commit: what makes no sense is refused in qemu-img's words") {
  const Scene scene;
  check_refused(scene, {"commit", "base"}, "Image does not have a backing file");
  check_refused(scene, {"commit", "-f", "raw", "top"}, "Image does not have a backing file");
  check_refused(scene, {"commit", "-b", "top", "top"},
                "Did not find 'top' in the backing chain of 'top'");
  check_refused(scene, {"commit", "-b", "none", "top"},
                "Did not find 'none' in the backing chain of 'top'");
  check_refused(scene, {"commit", "-b", "", "top"}, "Did not find ''");
  check_refused(scene, {"commit", "-t", "bogus", "top"}, "Invalid cache option: bogus");
  check_refused(scene, {"commit", "-r", "garbage", "top"}, "Invalid rate limit specified");
  check_refused(scene, {"commit", "missing"}, "No such file");
}

TEST_CASE("commit: a base that another image reads through is not changed without --force") {
  const Scene scene;
  ImageBuilder(over("base")).data(9, 's').build().write_to(scene.path("sibling"));
  check_refused(scene, {"commit", "-b", "base", "top"}, "sibling");
  const Ran plan = scene.run({"plan", "commit", "-b", "base", "top"});
  CHECK(plan.status == 1);
  CHECK(plan.out.find("sibling reads through the base") != std::string::npos);
  // The next layer is another matter.
  CHECK(scene.run({"commit", "top"}).status == 0);
  CHECK(scene.run({"commit", "--force", "-b", "base", "top"}).status == 0);
}

TEST_CASE("commit: an image in another folder is found where --scan says") {
  const Scene scene;
  const TempFolder other;
  ImageBuilder(over(scene.path("base"))).data(9, 's').build().write_to(other / "sibling");
  check_refused(scene, {"commit", "--scan", other.path(), "-b", "base", "top"}, "sibling");
  CHECK(scene.run({"commit", "-b", "base", "top"}).status == 0);
}

TEST_CASE("commit: overlays of the image itself read the same, and are not in the way") {
  const Scene scene;
  ImageBuilder(over("top")).data(9, 's').build().write_to(scene.path("overlay"));
  CHECK(scene.run({"commit", "top"}).status == 0);
  CHECK(scene.run({"check", "--backing-chain", "overlay"}).status == 0);
}

namespace {

// What the guest reads through an image.
std::string guest_content(const std::string& path) {
  const auto files = io::system_files({}).value();
  const auto image = graph::open(*files, {}, {.name = path, .format = "qcow2"}).value();
  const graph::Chain chain = graph::Chain::make(*image).value();
  Bytes bytes(chain.guest_size());
  REQUIRE(chain.read({0}, bytes).has_value());
  return to_string(bytes);
}

std::string backing_file_of(const TempFolder& folder, const std::string& image) {
  const Ran info = run_coldchain_in(folder.path(), {"info", "--output=json", image});
  return nlohmann::json::parse(info.out).value("backing-filename", "");
}

}  // namespace

TEST_CASE("commit: with --reparent overlays read through the base, those of overlays as before") {
  const TempFolder folder;
  const TempFolder other;
  const auto in = [&](const std::string& name) { return folder / name; };
  ImageBuilder(over("")).data(1, 'b').data(5000, 'b').build().write_to(in("base"));
  // Ends before the base does, on a cluster that is none of the overlay's.
  ImageBuilder(over("base", 4096 * 4096)).data(2, 't').build().write_to(in("top"));
  ImageBuilder(over("top")).data(3, '1').build().write_to(in("one"));
  ImageBuilder(over(in("top"))).data(5000, '2').build().write_to(other / "two");
  ImageBuilder(over("one")).build().write_to(in("leaf"));
  const std::vector<std::string> images = {in("one"), other / "two", in("leaf")};
  std::vector<std::string> before;
  for (const std::string& image : images)
    before.push_back(guest_content(image));
  const std::vector<std::string> command = {"commit", "--reparent", "--scan", other.path(), "top"};
  const Ran refused = run_coldchain_in(folder.path(), command);
  CHECK(refused.status == 1);
  CHECK(refused.err.find("--yes") != std::string::npos);
  CHECK(backing_file_of(folder, "one") == "top");
  std::vector<std::string> agreed = command;
  agreed.insert(agreed.begin() + 1, "--yes");
  const Ran done = run_coldchain_in(folder.path(), agreed);
  CHECK_MESSAGE(done.status == 0, done.err);
  CHECK(backing_file_of(folder, "one") == "base");
  CHECK(backing_file_of(folder, other / "two") == in("base"));
  CHECK(backing_file_of(folder, "leaf") == "one");
  for (std::size_t i = 0; i < images.size(); ++i) {
    CHECK((guest_content(images[i]) == before[i]));
    CHECK(run_coldchain_in(folder.path(), {"check", images[i]}).status == 0);
  }
  // Once more there is nothing left to do, and nothing changes for those who read the base.
  CHECK(run_coldchain_in(folder.path(), agreed).status == 0);
}

TEST_CASE("commit: overlays in a folder whose name has a protocol are those that are found") {
  const TempFolder folder;
  for (const char* name : {"good", "file:good", "images"})
    std::filesystem::create_directory(folder / name);
  for (const char* name : {"good/one", "file:good/one"})
    ImageBuilder(over("../images/top")).data(3, '1').build().write_to(folder / name);
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "images/base");
  ImageBuilder(over("base")).data(2, 't').build().write_to(folder / "images/top");
  const Ran done = run_coldchain_in(
      folder.path(), {"commit", "--reparent", "--yes", "--scan", "file:good", "images/top"});
  CHECK_MESSAGE(done.status == 0, done.err);
  CHECK(backing_file_of(folder, "./file:good/one") == folder / "images/base");
  CHECK(backing_file_of(folder, "good/one") == "../images/top");
}

TEST_CASE("commit: a reader in a folder whose name has a protocol is in the way as any other") {
  const TempFolder folder;
  for (const char* name : {"good", "file:good", "images"})
    std::filesystem::create_directory(folder / name);
  ImageOptions reads_bytes = over("../images/top", 1 << 20);
  reads_bytes.backing_format = "raw";
  ImageBuilder(reads_bytes).build().write_to(folder / "file:good/one");
  ImageBuilder(over("../images/top")).build().write_to(folder / "good/one");
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "images/base");
  ImageBuilder(over("base")).data(2, 't').build().write_to(folder / "images/top");
  const Ran refused =
      run_coldchain_in(folder.path(), {"commit", "--scan", "file:good", "images/top"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("file:good/one") != std::string::npos, refused.err);
}

TEST_CASE("commit: who reads the base when that has everything already is not in the way") {
  const Scene scene;
  ImageBuilder(over("top")).data(9, 'o').build().write_to(scene.path("overlay"));
  const std::vector<std::string> command = {"commit", "--reparent", "--yes", "-b", "base", "top"};
  REQUIRE(scene.run(command).status == 0);
  const Ran again = scene.run(command);
  CHECK_MESSAGE(again.status == 0, again.err);
  ImageBuilder(over("mid")).data(3, 'x').build().write_to(scene.path("top"));
  const Ran refused = scene.run(command);
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("overlay") != std::string::npos, refused.err);
}

TEST_CASE(
    "commit: who reads the bytes of the base's file is in the way also if the guest sees the "
    "same") {
  const Scene scene;
  ImageBuilder(over("")).build().write_to(scene.path("lower"));
  ImageBuilder(over("lower")).data(3, 0).build().write_to(scene.path("upper"));
  ImageOptions options = over("lower");
  options.backing_format = "raw";
  ImageBuilder(options).build().write_to(scene.path("bytes"));
  const std::string before = read_file(scene.path("lower"));
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"commit", "upper"}, {"commit", "-d", "upper"}, {"plan", "commit", "upper"}}) {
    const Ran refused = scene.run(command);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("bytes") != std::string::npos, refused.err);
    CHECK((read_file(scene.path("lower")) == before));
  }
  // Also where its guest is written nothing, but a bitmap is added.
  ImageBuilder(over("lower"))
      .bitmap("a", qcow2::bitmap_flags::automatic)
      .build()
      .write_to(scene.path("upper"));
  CHECK(scene.run({"commit", "-d", "upper"}).status == 0);
  CHECK((read_file(scene.path("lower")) == before));
  CHECK(scene.run({"commit", "-d", "--bitmaps=merge", "upper"}).status == 1);
  CHECK((read_file(scene.path("lower")) == before));
  std::filesystem::remove(scene.path("bytes"));
  CHECK(scene.run({"commit", "-d", "--bitmaps=merge", "upper"}).status == 0);
  CHECK((read_file(scene.path("lower")) != before));
}

TEST_CASE("commit: an image that reads the bytes of the top's file is in the way of emptying it") {
  const Scene scene;
  ImageOptions options = over("top");
  options.backing_format = "raw";
  ImageBuilder(options).build().write_to(scene.path("bytes"));
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"commit", "top"}, {"commit", "--force", "--reparent", "--yes", "top"}}) {
    const Ran refused = scene.run(command);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("bytes") != std::string::npos, refused.err);
    CHECK(scene.is_as_before());
  }
  CHECK(scene.run({"commit", "-d", "top"}).status == 0);
}

TEST_CASE("commit: a commit that is pending without it does not make --reparent do nothing") {
  const Scene scene;
  ImageBuilder(over("top")).build().write_to(scene.path("overlay"));
  REQUIRE(scene.interrupt({"commit", "top"}).status == testing::status_of_interrupted);
  const Ran done = scene.run({"commit", "--reparent", "--yes", "top"});
  CHECK_MESSAGE(done.status == 0, done.err);
  CHECK(nlohmann::json::parse(scene.run({"info", "--output=json", "overlay"}).out)
            .value("backing-filename", "") == "mid");
}

TEST_CASE("commit: what the base needs no more is given back") {
  const TempFolder folder;
  ImageBuilder base(over(""));
  for (std::uint64_t cluster = 0; cluster < 1024; ++cluster)
    base.data(cluster, 'b');
  base.build().write_to(folder / "base");
  ImageBuilder top(over("base"));
  for (std::uint64_t cluster = 0; cluster < 512; ++cluster)
    top.zero(cluster);
  top.build().write_to(folder / "top");
  const auto storage = [&] {
    struct stat status {};
    REQUIRE(::stat((folder / "base").c_str(), &status) == 0);
    return status.st_blocks * 512;
  };
  const auto before = storage();
  const Ran planned = run_coldchain_in(folder.path(), {"plan", "commit", "--output=json", "top"});
  CHECK(nlohmann::json::parse(planned.out)["discarded-bytes"] == 512 * 4096);
  CHECK(run_coldchain_in(folder.path(), {"commit", "top"}).status == 0);
  CHECK(storage() <= before - 512 * 4096 + 65536);
  CHECK(run_coldchain_in(folder.path(), {"check", "base"}).status == 0);
}

TEST_CASE("commit: an overlay that would need clusters, or whose snapshot would see more, stays") {
  struct Kind {
    unsigned version;
    std::uint64_t top_size;
    std::string why;
  };
  for (const Kind& kind :
       {Kind{2, 16 << 20, "cannot mark them"}, Kind{3, (16 << 20) + 512, "cannot mark them"}}) {
    const TempFolder folder;
    ImageBuilder(over("")).data(5000, 'b').build().write_to(folder / "base");
    ImageBuilder(over("base", kind.top_size)).data(2, 't').build().write_to(folder / "top");
    ImageOptions options = over("top");
    options.version = kind.version;
    ImageBuilder(options).data(3, '1').build().write_to(folder / "one");
    const std::string before = read_file(folder / "base") + read_file(folder / "one");
    const Ran refused = run_coldchain_in(folder.path(), {"commit", "--reparent", "--yes", "top"});
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find(kind.why) != std::string::npos, refused.err);
    CHECK((read_file(folder / "base") + read_file(folder / "one") == before));
  }
}

TEST_CASE("commit: an internal snapshot that reads through the base is in the way") {
  const Scene scene;
  ImageBuilder(over("mid"))
      .data(3, 't')
      .snapshot("1", "before")
      .data(4, 'n')
      .build()
      .write_to(scene.path("snapped"));
  // It has 3 itself, and reads 4 through what changes.
  check_refused(scene, {"commit", "--force", "--scan", ".", "-b", "none", "snapped"}, "none");
  const Ran refused = scene.run({"commit", "snapped"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("1 (before) of snapped") != std::string::npos);
  const Ran forced = scene.run({"commit", "--force", "snapped"});
  CHECK(forced.status == 0);
  CHECK(forced.err.find("1 (before) of snapped reads different data") != std::string::npos);
}

TEST_CASE("commit: a base whose format is recorded nowhere is not written to") {
  const Scene scene;
  ImageOptions options = over("base");
  options.backing_format = "";
  ImageBuilder(options).data(3, 't').build().write_to(scene.path("unsure"));
  check_refused(scene, {"commit", "--allow-probe", "unsure"}, "no image records the format");
}

TEST_CASE("commit: a damaged base, and a damaged image, are refused and told how to mend") {
  const Scene scene;
  for (const std::string name : {"base", "top"}) {
    const std::string text = read_file(scene.path(name));
    const ByteView bytes = text_bytes(text);
    testing::Patient patient(Bytes(bytes.begin(), bytes.end()));
    patient.set_refcount(patient.host_cluster(name == "base" ? 1 : 3), 0);
    const Scene other;
    testing::write_file(other.path(name), patient.bytes());
    const std::string damaged = read_file(other.path(name));
    // Below the next layer nobody writes to the top's own clusters.
    const Ran ran =
        name == "base" ? other.run({"commit", "-b", "base", "top"}) : other.run({"commit", "top"});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find("coldchain check -r all") != std::string::npos, ran.err);
    CHECK((read_file(other.path(name)) == damaged));
    CHECK_FALSE(other.is_pending());
  }
}

TEST_CASE("commit: with --detect-zeroes data that is zeros takes no place, also after a stop") {
  const auto added = [](const Ran& planned) -> std::uint64_t {
    return nlohmann::json::parse(planned.out)["added-clusters"]["data"];
  };
  const Scene whole;
  CHECK(added(whole.run({"plan", "commit", "--output=json", "--detect-zeroes", "top"})) + 17 ==
        added(whole.run({"plan", "commit", "--output=json", "top"})));
  REQUIRE(whole.run({"commit", "--detect-zeroes", "top"}).status == 0);
  for (const std::vector<std::string>& next : std::vector<std::vector<std::string>>{
           {"commit", "--detect-zeroes", "top"}, {"resume", "top"}, {"resume", "mid"}}) {
    const Scene scene;
    REQUIRE(scene.interrupt({"commit", "--detect-zeroes", "top"}).status ==
            testing::status_of_interrupted);
    CHECK(scene.run({"commit", "top"}).err.find("another commit is pending") != std::string::npos);
    const Ran ended = scene.run(next);
    CHECK_MESSAGE(ended.status == 0, ended.err);
    CHECK((read_file(scene.path("mid")) == read_file(whole.path("mid"))));
  }
}

TEST_CASE("commit: data that is zeros makes holes of a raw base with --detect-zeroes") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(1 << 20, 'b'));
  ImageOptions options = over("base", 1 << 20);
  options.backing_format = "raw";
  ImageBuilder top(options);
  for (std::uint64_t cluster = 0; cluster < 128; ++cluster)
    top.data(cluster, 0);
  top.data(130, 't').build().write_to(folder / "top");
  const std::string before = read_file(folder / "base");
  const auto plan = nlohmann::json::parse(
      run_coldchain_in(folder.path(), {"plan", "commit", "--detect-zeroes", "--output=json", "top"})
          .out);
  CHECK(plan["sources"][0]["bytes"] == 4096);
  CHECK(run_coldchain_in(folder.path(), {"commit", "--detect-zeroes", "top"}).status == 0);
  const std::string after = read_file(folder / "base");
  CHECK((after == std::string(512 << 10, '\0') + before.substr(0, 2 * 4096) +
                      std::string(4096, 't') + before.substr(0, (128 - 3) * 4096)));
}

TEST_CASE("commit: bits of the base's bitmap record what is written") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(testing::run_in(folder.path(),
                          "qemu-img create -q -f qcow2 base 8M && qemu-io -c 'write -q 3M 64k' "
                          "base && qemu-img bitmap --add base on && "
                          "qemu-img bitmap --add --disable base off && "
                          "qemu-img create -q -f qcow2 -b base -F qcow2 top && "
                          "qemu-io -c 'write -q 1M 128k' -c 'write -q -z 3M 64k' top")
              .status == 0);
  REQUIRE(run_coldchain_in(folder.path(), {"commit", "-q", "top"}).status == 0);
  CHECK(testing::run_in(folder.path(), "qemu-img check -q base").status == 0);
  for (const std::string name : {"on", "off"}) {
    const auto map = testing::run_in(
        folder.path(), "qemu-nbd -r -f qcow2 -B " + name +
                           " -k $PWD/socket --fork base && nbdinfo --map=qemu:dirty-bitmap:" +
                           name + " \"nbd+unix:///?socket=$PWD/socket\"");
    CAPTURE(map.err);
    CHECK((map.out.find("dirty") != std::string::npos) == (name == "on"));
    if (name == "on") {
      CHECK(map.out.find("131072    1  dirty") != std::string::npos);
      CHECK(map.out.find("65536    1  dirty") != std::string::npos);
    }
  }
}

TEST_CASE("commit: a base that is recorded as raw, and is qcow2, is not overwritten") {
  const TempFolder folder;
  ImageBuilder(over("")).data(0, 'b').build().write_to(folder / "base");
  ImageOptions options = over("base");
  options.backing_format = "raw";
  ImageBuilder(options).data(0, 't').build().write_to(folder / "top");
  const std::string before = read_file(folder / "base");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"plan", "commit", "top"}, {"commit", "top"}}) {
    const Ran refused = run_coldchain_in(folder.path(), command);
    CHECK(refused.status == 1);
    CHECK_MESSAGE(refused.err.find("rebase -u -b base -F qcow2") != std::string::npos, refused.err);
    CHECK((read_file(folder / "base") == before));
  }
  // A guest may have written it.
  CHECK(run_coldchain_in(folder.path(), {"commit", "--force", "top"}).status == 0);
}

TEST_CASE("plan, commit: say that the base was modified after the image above it") {
  const Scene scene;
  std::filesystem::last_write_time(
      scene.path("mid"), std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  const Ran plan = scene.run({"plan", "commit", "top"});
  CHECK_MESSAGE(plan.err.find("backing-changed") != std::string::npos, plan.err);
  CHECK_MESSAGE(plan.out.find("searched    ") != std::string::npos, plan.out);
  const Ran pull = scene.run({"plan", "pull", "top"});
  CHECK_MESSAGE(pull.err.find("backing-changed") != std::string::npos, pull.err);
}
