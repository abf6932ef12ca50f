// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <array>
#include <filesystem>

#include <coldchain/qcow2/image.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

using Words = std::vector<std::string>;

constexpr std::uint64_t cluster_size = 16384;

struct Kind {
  const char* name;
  std::uint32_t version;
  bool extended_l2;
};
constexpr Kind kinds[] = {{"v2", 2, false}, {"v3", 3, false}, {"subclusters", 3, true}};

// Layers as the mail of the scenarios draws them: a letter is data, '.' is nothing.
class Scene {
 public:
  Scene(const Kind& kind, const Words& layers) : names_(layers.size()) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      names_[i] = "layer-" + std::to_string(i);
      ImageOptions options;
      options.version = kind.version;
      options.extended_l2 = kind.extended_l2;
      options.cluster_bits = 14;
      options.size = layers[i].size() * cluster_size;
      options.backing_file = i == 0 ? "" : names_[i - 1];
      options.backing_format = i == 0 ? "" : "qcow2";
      ImageBuilder builder(options);
      for (std::size_t cluster = 0; cluster < layers[i].size(); ++cluster)
        put(builder, kind, cluster, layers[i][cluster]);
      builder.build().write_to(folder_ / names_[i]);
    }
  }

  Ran run(const Words& arguments) const { return run_coldchain_in(folder_.path(), arguments); }
  // With the options, of the image at the top.
  Ran allocate(Words words, const Words& before = {}) const {
    words.insert(words.begin(), "allocate");
    words.insert(words.begin(), before.begin(), before.end());
    words.push_back(top());
    return run(words);
  }
  [[nodiscard]] const std::string& top() const { return names_.back(); }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string folder() const { return folder_.path(); }

  // What the tables of the image at the top say: '0' is zeros with a place, 'z' without.
  [[nodiscard]] std::string drawn() const {
    const auto files = io::system_files({});
    const auto file = (*files)->open(path(top()));
    const auto image = qcow2::Image::open(**file);
    const auto mapping = image->active_mapping();
    qcow2::Mapping::Cursor cursor;
    std::string out;
    for (std::uint64_t at = 0; at < mapping->guest_size(); at += cluster_size) {
      const auto location = mapping->locate({at}, cursor);
      Bytes bytes(1);
      qcow2::Image::Unpacked unpacked;
      switch (location->kind) {
        case qcow2::RunKind::data:
        case qcow2::RunKind::compressed:
          REQUIRE(image->read(*location, {at}, bytes, unpacked).has_value());
          out += bytes[0] == std::byte{0} ? '0' : static_cast<char>(bytes[0]);
          break;
        case qcow2::RunKind::zero_reserved:
          out += '0';
          break;
        case qcow2::RunKind::zero:
          out += 'z';
          break;
        default:
          out += '.';
      }
    }
    return out;
  }

 private:
  static void put(ImageBuilder& builder, const Kind& kind, std::size_t cluster, char what) {
    if (what == '.')
      return;
    if (what == 'z')
      builder.zero(cluster);
    else if (what >= 'a' && what <= 'f')
      builder.compressed(cluster, static_cast<std::uint8_t>(what));
    else if (kind.extended_l2)
      builder.subclusters(cluster, 0xffffffff, 0, static_cast<std::uint8_t>(what));
    else
      builder.data(cluster, static_cast<std::uint8_t>(what));
  }

  TempFolder folder_;
  Words names_;
};

struct Scenario {
  const char* what;
  Words layers;
  Words options;
  std::string wanted;
};

const std::string first_five = "--range=0:" + std::to_string(5 * cluster_size);

// interop: with the two slips of the drawings corrected, where the guest's own data were lost.
const std::vector<Scenario> scenarios = {
    {"new, fully allocated", {"........."}, {}, "000000000"},
    {"new, half allocated", {"........."}, {first_five}, "00000...."},
    {"existing, fully allocated", {"X.XX..X.X"}, {}, "X0XX00X0X"},
    {"existing, half allocated", {"X.XX..X.X"}, {first_five}, "X0XX0.X.X"},
    {"new, independent, thin", {"X.XX..X.X", "........."}, {"--thin"}, "X.XX..X.X"},
    {"existing, independent, thin", {"X.XX..X.X", "YYY......"}, {"--thin"}, "YYYX..X.X"},
    {"existing, independent, full", {"X.XX..X.X", "YYY......"}, {}, "YYYX00X0X"},
    {"two layers below, full", {"..ZZ...Z.", "X.X...X.X", "YY.Y....."}, {}, "YYXY00XZX"},
};

std::uint64_t storage_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

bool tells_reserved_from_holes(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  std::array<std::byte, sizeof(fiemap)> request{};
  reinterpret_cast<fiemap*>(request.data())->fm_length = FIEMAP_MAX_OFFSET;
  const bool tells = ::ioctl(fd, FS_IOC_FIEMAP, request.data()) == 0;
  ::close(fd);
  return tells;
}

}  // namespace

TEST_CASE("allocate: each scenario of thin provisioning comes out as it is drawn") {
  for (const Kind& kind : kinds) {
    for (const Scenario& scenario : scenarios) {
      for (const bool fills : {false, true}) {
        CAPTURE(kind.name);
        CAPTURE(scenario.what);
        CAPTURE(fills);
        Words options = scenario.options;
        if (fills && options == Words{"--thin"})
          continue;
        if (fills)
          options.push_back("--zero-fill");
        const Scene scene(kind, scenario.layers);
        std::filesystem::copy(scene.path(scene.top()), scene.path("former"));
        const Ran ran = scene.allocate(options);
        CHECK(ran.status == 0);
        CHECK(ran.err == "");
        CHECK(scene.drawn() == scenario.wanted);
        CHECK(scene.run({"check", scene.top()}).status == 0);
        CHECK(testing::run_in(scene.folder(), "qemu-img compare former " + scene.top()).status ==
              0);
        const auto info =
            nlohmann::json::parse(scene.run({"info", "--output=json", scene.top()}).out);
        CHECK_FALSE(info.contains("backing-filename"));
        const std::string once = read_file(scene.path(scene.top()));
        CHECK(scene.allocate(options).out.find("Nothing had to be done.") != std::string::npos);
        CHECK((read_file(scene.path(scene.top())) == once));
      }
    }
  }
}

TEST_CASE("allocate: of a part, the backing file stays, and zeros of it become explicit") {
  for (const Kind& kind : kinds) {
    if (kind.version < 3)
      continue;
    CAPTURE(kind.name);
    const auto after = [&](Words command) {
      const Scene scene(kind, {"XzX.X...X", "........."});
      command.push_back(first_five);
      command.push_back(scene.top());
      CHECK(scene.run(command).status == 0);
      CHECK(scene.run({"info", scene.top()}).out.find("backing file: layer-0") !=
            std::string::npos);
      return scene.drawn();
    };
    CHECK(after({"allocate", "--thin"}) == "XzX.X....");
    CHECK(after({"pull"}) == "XzX.X....");
    CHECK(after({"allocate"}) == "X0X0X....");
  }
}

TEST_CASE("allocate: no write of the guest needs a cluster afterwards") {
  for (const Kind& kind : kinds) {
    CAPTURE(kind.name);
    const Scene scene(kind, {"X.Xa.X...", "Y.b......"});
    std::filesystem::copy(scene.path(scene.top()), scene.path("former"));
    REQUIRE(testing::run_in(scene.folder(), "qemu-img snapshot -c s " + scene.top()).status == 0);
    REQUIRE(scene.allocate({"--force"}).status == 0);
    const auto end = [&] {
      return nlohmann::json::parse(
          scene.run({"check", "--output=json", scene.top()}).out)["image-end-offset"];
    };
    CHECK(testing::run_in(scene.folder(), "qemu-img compare former " + scene.top()).status == 0);
    const auto before = end();
    for (std::uint64_t cluster = 0; cluster < 9; ++cluster)
      REQUIRE(testing::run_in(scene.folder(), "qemu-io -c 'write -P 7 " +
                                                  std::to_string(cluster * cluster_size + 512) +
                                                  " 512' " + scene.top())
                  .status == 0);
    CHECK(end() == before);
    CHECK(testing::run_in(scene.folder(), "qemu-img check " + scene.top()).status == 0);
  }
}

TEST_CASE("allocate: behind the end of the disk nothing comes to light when it grows") {
  // Of the last cluster a half is in the disk, all of it is allocated, and a snapshot shares it.
  const TempFolder folder;
  ImageOptions options;
  options.extended_l2 = true;
  options.cluster_bits = 16;
  options.size = 3 * 32768;
  ImageBuilder builder(options);
  builder.data(0, 'x').subclusters(1, 0xffffffff, 0, 'y').snapshot("1", "s");
  builder.build().write_to(folder / "top");
  // What the free clusters of the file hold.
  testing::write_file(folder / "top", read_file(folder / "top") + std::string(1 << 20, 'z'));
  REQUIRE(run_coldchain_in(folder.path(), {"allocate", "--force", "top"}).status == 0);
  REQUIRE(testing::run_in(folder.path(), "qemu-img resize -q -f qcow2 top 1M").status == 0);
  const auto read = testing::run_in(
      folder.path(), "qemu-io -f qcow2 -c 'read -P 0 96k 928k' -c 'read -P 121 64k 32k' top");
  CHECK(read.status == 0);
  CHECK(read.out.find("Pattern verification failed") == std::string::npos);
}

TEST_CASE("allocate: places that lie in holes of the file get storage") {
  const TempFolder folder;
  for (const char* how : {"--reserve", "--zero-fill"}) {
    REQUIRE(testing::run_in(folder.path(),
                            "qemu-img create -q -f qcow2 -o preallocation=metadata holes 8M")
                .status == 0);
    CHECK(storage_of(folder / "holes") < 4 << 20);
    CHECK(run_coldchain_in(folder.path(), {"allocate", how, "holes"}).status == 0);
    CHECK(storage_of(folder / "holes") >= 8 << 20);
    CHECK(testing::run_in(folder.path(), "qemu-img check holes").status == 0);
  }
}

TEST_CASE("allocate: a raw image gets storage, and keeps what it holds") {
  for (const bool fills : {false, true}) {
    const TempFolder folder;
    const std::string path = folder / "raw";
    testing::write_file(path, "content");
    std::filesystem::resize_file(path, 8 << 20);
    const std::string before = read_file(path);
    const auto allocate = [&](Words options) {
      options.insert(options.begin(), {"allocate", "-f", "raw"});
      if (fills)
        options.emplace_back("--zero-fill");
      options.emplace_back("raw");
      return run_coldchain_in(folder.path(), options);
    };
    CHECK(run_coldchain_in(folder.path(), {"plan", "allocate", "-f", "raw", "raw"}).status == 0);
    CHECK(storage_of(path) < 1 << 20);
    CHECK(allocate({"--range=1M:2M"}).status == 0);
    CHECK(storage_of(path) >= 2 << 20);
    CHECK(storage_of(path) < 4 << 20);
    CHECK(allocate({}).status == 0);
    CHECK(storage_of(path) >= 8 << 20);
    CHECK((read_file(path) == before));
    const auto map = nlohmann::json::parse(
        testing::run_in(folder.path(), "qemu-img map -f raw --output=json raw").out);
    // What is only reserved, some systems tell from data and some do not.
    CHECK((!fills || map.size() == 1));
    CHECK(run_coldchain_in(folder.path(), {"allocate", "--thin", "-f", "raw", "raw"}).status == 0);
    CHECK(storage_of(path) >= 8 << 20);
  }
}

TEST_CASE("allocate: what makes no sense is refused, and nothing is changed") {
  const Scene scene(kinds[1], {"X.XX..X.X", "YYY......"});
  const std::string before = read_file(scene.path(scene.top()));
  const auto refused = [&](const Words& options, const std::string& why) {
    const Ran ran = scene.allocate(options);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
    CHECK((read_file(scene.path(scene.top())) == before));
  };
  refused({"--thin", "--zero-fill"}, "--thin and --zero-fill exclude each other");
  refused({"--range=5"}, "OFFSET:LENGTH");
  refused({"--range=x:5"}, "range offset");
  refused({"--range=0:0"}, "is not within the disk of 147456 bytes");
  refused({"--range=147456:1"}, "is not within the disk of 147456 bytes");
  refused({"--range=1:7E"}, "is not within the disk");
  CHECK(scene.run({"pull", "-b", "layer-0", "--range=0:1", scene.top()}).status == 1);
}

TEST_CASE("allocate: one that was stopped is known, and goes on as what it was") {
  for (const Words& options : {Words{}, {"--zero-fill"}, {first_five}}) {
    const Words layers = {"X.XX..X.X", "YYY......"};
    const Scene done(kinds[1], layers);
    REQUIRE(done.allocate(options).status == 0);
    const Scene stopped(kinds[1], layers);
    Words words = {"allocate", stopped.top()};
    words.insert(words.end(), options.begin(), options.end());
    REQUIRE(testing::interrupt_coldchain_in(stopped.folder(), words).status != 0);
    const std::string pending = stopped.path(stopped.top() + ".coldchain-pending");
    REQUIRE(std::filesystem::exists(pending));
    const Ran other = stopped.allocate({"--thin"});
    CHECK(other.status == 1);
    CHECK(other.err.find("is pending: 'coldchain resume") != std::string::npos);
    CHECK(stopped.run({"pull", stopped.top()}).status == 1);
    REQUIRE(std::filesystem::exists(pending));
    CHECK(stopped.run({"resume", stopped.top()}).status == 0);
    CHECK_FALSE(std::filesystem::exists(pending));
    CHECK((read_file(stopped.path(stopped.top())) == read_file(done.path(done.top()))));
  }
}

TEST_CASE("allocate: what was reserved needs no room again") {
  const TempFolder folder;
  std::filesystem::resize_file((testing::write_file(folder / "raw", ""), folder / "raw"), 8 << 20);
  REQUIRE(run_coldchain_in(folder.path(), {"allocate", "-q", "-f", "raw", "raw"}).status == 0);
  if (!tells_reserved_from_holes(folder / "raw")) {
    MESSAGE("skipped: this file system does not tell what is reserved");
    return;
  }
  const Ran again = run_coldchain_in(folder.path(), {"plan", "allocate", "-f", "raw", "raw"});
  CHECK(again.out.find("storage     0 bytes are allocated") != std::string::npos);
}

TEST_CASE("allocate: a disk for which there is no room is refused at once") {
  const TempFolder folder;
  REQUIRE(testing::run_in(folder.path(), "qemu-img create -q -f qcow2 huge 8T").status == 0);
  const std::string before = read_file(folder / "huge");
  const Ran ran = run_coldchain_in(folder.path(), {"allocate", "huge"});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("bytes of storage are needed, and the file system has room for") !=
        std::string::npos);
  CHECK((read_file(folder / "huge") == before));
}

TEST_CASE("allocate: one that was stopped can be given up") {
  const Scene scene(kinds[1], {"X.XX..X.X", "YYY......"});
  const std::string before = scene.drawn();
  REQUIRE(testing::interrupt_coldchain_in(scene.folder(), {"allocate", scene.top()}).status != 0);
  CHECK(scene.run({"resume", "--abandon", scene.top()}).status == 0);
  CHECK(scene.drawn() == before);
  CHECK(scene.run({"check", scene.top()}).status == 0);
}

TEST_CASE("apply: carries out an allocation, too, of qcow2 and raw images") {
  const Scene planned(kinds[1], {"X.XX..X.X", "YYY......"});
  const Ran plan = planned.allocate({"--output=json"}, {"plan"});
  REQUIRE(plan.status == 0);
  testing::write_file(planned.path("plan.json"), plan.out);
  CHECK(planned.run({"apply", "plan.json"}).status == 0);
  CHECK(planned.drawn() == "YYYX00X0X");
  CHECK(planned.run({"apply", "plan.json"}).status == 1);
  testing::write_file(planned.path("raw"), std::string(4096, '\0'));
  std::filesystem::resize_file(planned.path("raw"), 1 << 20);
  const Ran raw = planned.run({"plan", "allocate", "-f", "raw", "--output=json", "raw"});
  testing::write_file(planned.path("plan.json"), raw.out);
  CHECK(planned.run({"apply", "plan.json"}).status == 0);
  CHECK(storage_of(planned.path("raw")) >= 1 << 20);
}
