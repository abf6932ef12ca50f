// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "fake_world.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <filesystem>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

using namespace coldchain;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

// A folder with a damaged image "a".
class Scene {
 public:
  explicit Scene(const std::string& damage) : bytes_(to_string(testing::damage(damage).image())) {
    testing::write_file(path(), bytes_);
  }
  [[nodiscard]] std::string path() const { return folder_ / "a"; }
  [[nodiscard]] const TempFolder& folder() const { return folder_; }
  [[nodiscard]] bool is_as_before() const { return read_file(path()) == bytes_; }
  [[nodiscard]] bool has(const std::string& name) const {
    return std::filesystem::exists(folder_ / name);
  }
  Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder_.path(), arguments);
  }

 private:
  TempFolder folder_;
  std::string bytes_;
};

// Puts QEMU's lock byte on a file, as a running machine does.
class Locked {
 public:
  Locked(const std::string& path, std::uint64_t byte) : fd_(::open(path.c_str(), O_RDWR)) {
    struct flock lock = {};
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(byte);
    lock.l_len = 1;
    REQUIRE(::fcntl(fd_, F_OFD_SETLK, &lock) == 0);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  ~Locked() { ::close(fd_); }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("repair: mends, says so as qemu-img does, and keeps what an undo needs, golden") {
  const Scene scene("refcount-zero");
  const Ran ran = scene.run({"check", "-r", "all", "a"});
  CHECK(ran.status == 0);
  CHECK(ran.out ==
        "The following inconsistencies were found and repaired:\n\n"
        "    0 leaked clusters\n"
        "    1 corruptions\n\n"
        "Double checking the fixed image now...\n"
        "No errors were found on the image.\n"
        "14/1024 = 1.37% allocated, 0.00% fragmented, 0.00% compressed clusters\n"
        "Image end offset: 81920\n");
  CHECK(ran.err.find("ERROR cluster 4 refcount=0 reference=1\nRebuilding refcount structure\n") !=
        std::string::npos);
  CHECK(ran.err.find("coldchain undo " + scene.path() + ".coldchain-undo " + scene.path()) !=
        std::string::npos);
  CHECK(scene.has("a.coldchain-undo"));
  const Ran undone = scene.run({"undo", "a.coldchain-undo", "a"});
  CHECK(undone.status == 0);
  CHECK(undone.out == "a is as it was before.\n");
  CHECK(scene.is_as_before());
}

TEST_CASE("repair: the verb of that name is check -r all") {
  const Scene one("refcount-zero");
  const Scene two("refcount-zero");
  CHECK(one.run({"repair", "--no-undo", "a"}).out ==
        two.run({"check", "-r", "all", "--no-undo", "a"}).out);
  CHECK(read_file(one.path()) == read_file(two.path()));
  CHECK_FALSE(one.has("a.coldchain-undo"));
}

TEST_CASE("repair: --dry-run tells the plan and writes nothing, golden") {
  const Scene scene("l2-entry-past-end");
  const Ran ran = scene.run({"check", "-r", "all", "--dry-run", "a"});
  CHECK(ran.status == 3);
  CHECK(ran.out.find("read as zeros: L2 table 4, host 0xf020-0xf028, guest 0x4000-0x5000 is "
                     "lost\n") != std::string::npos);
  CHECK(ran.out.find("Nothing has been written") != std::string::npos);
  CHECK(ran.out.find("lost for good: guest 0x4000-0x5000") != std::string::npos);
  CHECK(ran.out.find("1 clusters keep their refcount") != std::string::npos);
  const Ran planned = scene.run({"plan", "repair", "a"});
  CHECK(planned.out == ran.out);
  CHECK(planned.status == ran.status);
  CHECK(scene.is_as_before());
  CHECK_FALSE(scene.has("a.coldchain-undo"));
}

TEST_CASE("repair: clusters that a former repair kept are kept by the next") {
  const Scene scene("l2-entry-past-end");
  CHECK(scene.run({"check", "-r", "all", "a"}).status == 3);
  CHECK(scene.run({"check", "-r", "leaks", "--dry-run", "a"}).status == 3);
  CHECK(scene.run({"check", "-r", "leaks", "a"}).status == 3);
  CHECK(scene.run({"check", "-r", "leaks", "--free-orphans", "a"}).status == 0);
}

TEST_CASE("repair: JSON has qemu-img's members, what was fixed, and the actions") {
  const Scene scene("l2-entry-past-end");
  const auto json =
      nlohmann::json::parse(scene.run({"check", "-r", "all", "--output=json", "a"}).out);
  CHECK(json["corruptions-fixed"] == 1);
  CHECK_FALSE(json.contains("leaks-fixed"));
  CHECK(json["leaks"] == 1);
  CHECK_FALSE(json.contains("corruptions"));
  const auto& repair = json["coldchain"]["repair"];
  CHECK(repair["tier"] == "all");
  CHECK(repair["dry-run"] == false);
  CHECK(repair["kept-clusters"] == 1);
  CHECK(repair["actions"][0]["action"] == "read as zeros");
  CHECK(repair["actions"][0]["lost"]["offset"] == 4 * 4096);
  CHECK(repair["undo-file"] == scene.path() + ".coldchain-undo");
}

TEST_CASE("repair: a sound image is left alone") {
  const TempFolder folder;
  testing::ImageBuilder(testing::ImageOptions{}).data(0, 'a').build().write_to(folder / "a");
  const std::string before = read_file(folder / "a");
  const Ran ran = run_coldchain_in(folder.path(), {"check", "-r", "all", "a"});
  CHECK(ran.status == 0);
  CHECK(ran.err.empty());
  CHECK(read_file(folder / "a") == before);
  CHECK_FALSE(std::filesystem::exists(folder / "a.coldchain-undo"));
}

TEST_CASE("repair: what makes no sense is refused before anything is opened for writing") {
  const Scene scene("refcount-zero");
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& why) {
    const Ran ran = scene.run(arguments);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
    CHECK(scene.is_as_before());
  };
  refused({"check", "-r", "some", "a"}, "expecting 'leaks' or 'all'");
  refused({"check", "--dry-run", "a"}, "add -r leaks or -r all");
  refused({"check", "-r", "all", "--backing-chain", "a"}, "-r repairs one image");
  refused({"check", "-r", "all", "a", "a"}, "-r repairs one image");
  refused({"check", "-r", "all", "--output=sarif", "a"}, "human or json");
  refused({"check", "-r", "leaks", "--rebuild-mapping", "a"}, "--rebuild-mapping needs -r all");
  refused({"repair", "--link", "0x5000=1", "a"}, "--link needs --rebuild-mapping");
  refused({"repair", "--rebuild-mapping", "--link", "0x5000", "a"}, "expected TABLE=INDEX");
  refused({"repair", "--undo", ".", "--no-undo", "a"}, "exclude each other");
  refused({"repair", "--undo", "missing", "a"}, "missing: No such file");
  refused({"repair", "--undo", "missing", "--dry-run", "a"}, "missing: No such file");
  refused({"check", "-r", "all", "missing"}, "No such file");
  refused({"check", "-r", "all", "."}, "is a directory");
  CHECK(scene.run({"check", "-r", "all", "-f", "raw", "a"}).status == 63);
}

TEST_CASE("repair: an image that another process uses is refused, whatever -U says") {
  const Scene scene("refcount-zero");
  for (const std::uint64_t byte : {101U, 103U, 201U, 203U}) {
    CAPTURE(byte);
    const Locked locked(scene.path(), byte);
    for (const char* share : {"-q", "-U"}) {
      const Ran ran = scene.run({"check", share, "-r", "all", "a"});
      CHECK(ran.status == 1);
      CHECK(ran.err.find("Is another process using the image") != std::string::npos);
    }
    CHECK(scene.is_as_before());
  }
  const Locked locked(scene.path(), 101);
  CHECK(scene.run({"resume", "a"}).status == 4);
  CHECK(scene.run({"undo", "x", "a"}).status == 4);
}

TEST_CASE("repair: a file with two names is refused, and nothing is left beside it") {
  const Scene scene("refcount-zero");
  std::filesystem::create_hard_link(scene.path(), scene.folder() / "b");
  const Ran ran = scene.run({"check", "-r", "all", "a"});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("has 2 names") != std::string::npos);
  CHECK(scene.is_as_before());
}

TEST_CASE(
    "repair: a pending change is told by those who only look, and finished by the next repair") {
  const Scene scene("refcount-zero");
  testing::write_file(scene.path() + ".coldchain-pending", std::string());
  for (const char* verb : {"check", "info"}) {
    const Ran ran = scene.run({verb, "a"});
    CHECK(ran.err.find("coldchain resume " + scene.path()) != std::string::npos);
  }
  std::filesystem::create_symlink("a", scene.folder() / "link");
  CHECK(scene.run({"check", "link"}).err.find("coldchain resume " + scene.path()) !=
        std::string::npos);
  CHECK(scene.run({"check", "-r", "all", "--dry-run", "a"}).status == 1);
  CHECK(scene.run({"check", "-r", "all", "a"}).status == 0);
  CHECK_FALSE(scene.has("a.coldchain-pending"));
}

TEST_CASE("repair: --link links a lost L2 table where it is told to, and nothing else") {
  const TempFolder folder;
  testing::ImageOptions options;
  options.cluster_bits = 12;
  options.size = 8 << 20;
  testing::ImageBuilder builder(options);
  builder.data(3, 'a').data(700, 'b').data(1500, 'c');
  const Bytes sound = builder.build().flat();
  testing::Patient patient(sound);
  const std::uint64_t first = patient.at(patient.l1_entry(0)) & ~(1ULL << 63);
  const std::uint64_t second = patient.at(patient.l1_entry(1)) & ~(1ULL << 63);
  patient.set(patient.l1_entry(0), 0);
  patient.set(patient.l1_entry(1), 0);
  testing::write_file(folder / "a", patient.bytes());
  const auto repair = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"repair", "--rebuild-mapping"});
    arguments.push_back("a");
    return run_coldchain_in(folder.path(), arguments);
  };
  // Two tables, and no way to tell which is which.
  const Ran proposed = repair({"--dry-run"});
  CHECK(proposed.status == 3);
  CHECK(proposed.out.find("'--link 0x") != std::string::npos);
  CHECK(repair({"--link", "0x5=0"}).status == 1);
  CHECK(repair({"--link", "nonsense"}).status == 1);
  CHECK(repair({"--link", std::to_string(first) + "=0", "--link", std::to_string(second) + "=1"})
            .status == 0);
  CHECK((read_file(folder / "a") == to_string(sound)));
}

TEST_CASE("repair: what was linked or given up is told, however quiet") {
  const TempFolder folder;
  testing::ImageOptions options;
  options.size = 1 << 20;
  testing::Patient patient(testing::ImageBuilder(options).data(0, 'a').build().flat());
  patient.set(patient.l1_entry(), 0);
  testing::write_file(folder / "a", patient.bytes());
  const Ran linked = run_coldchain_in(folder.path(), {"repair", "-q", "--rebuild-mapping", "a"});
  CHECK(linked.status == 0);
  CHECK(linked.err.find("link L2 table: L1 table 0") != std::string::npos);
  const Scene bitmaps("bitmap-directory-behind-every-offset");
  CHECK(bitmaps.run({"repair", "-q", "a"}).err.find("give up bitmaps") != std::string::npos);
}

TEST_CASE("repair: the command that undoes it can be pasted") {
  const Scene scene("refcount-zero");
  std::filesystem::rename(scene.path(), scene.folder() / "a b");
  const Ran ran = scene.run({"repair", "a b"});
  CHECK(ran.err.find("coldchain undo '" + scene.path() + " b.coldchain-undo' '" + scene.path() +
                     " b'\n") != std::string::npos);
}

TEST_CASE("repair: side files lie beside the file that symbolic links lead to") {
  const Scene scene("refcount-zero");
  std::filesystem::create_directory(scene.folder() / "links");
  std::filesystem::create_symlink("../a", scene.folder() / "links/b");
  const Ran ran = scene.run({"check", "-r", "all", "links/b"});
  CHECK(ran.status == 0);
  CHECK(scene.has("a.coldchain-undo"));
}

TEST_CASE("repair: --undo keeps the undo file in another folder") {
  const Scene scene("refcount-zero");
  std::filesystem::create_directory(scene.folder() / "kept");
  CHECK(scene.run({"check", "-r", "all", "--undo", "kept", "a"}).status == 0);
  CHECK_FALSE(scene.has("a.coldchain-undo"));
  CHECK(scene.has("kept/a.coldchain-undo"));
  CHECK(scene.run({"undo", "kept/a.coldchain-undo", "a"}).status == 0);
  CHECK(scene.is_as_before());
}

TEST_CASE("repair: where clusters were kept, --undo and --no-undo leave the undo file at home") {
  const std::vector<std::vector<std::string>> options = {{"--no-undo"}, {"--undo", "kept"}};
  for (const std::vector<std::string>& option : options) {
    const Scene scene("l2-entry-past-end");
    std::filesystem::create_directory(scene.folder() / "kept");
    std::vector<std::string> arguments = {"repair"};
    arguments.insert(arguments.end(), option.begin(), option.end());
    arguments.push_back("a");
    CHECK(scene.run(arguments).status == 3);
    CHECK(scene.has("a.coldchain-undo"));
    CHECK(scene.run({"repair", "-r", "leaks", "a"}).status == 3);
  }
}

TEST_CASE("resume: with nothing pending says so; of a missing image, too") {
  const Scene scene("refcount-zero");
  CHECK(scene.run({"resume", "a"}).out == "Nothing is pending for a.\n");
  CHECK(scene.run({"resume", "missing"}).status == 1);
  const Ran ran = scene.run({"undo", "missing", "a"});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("missing") != std::string::npos);
}

TEST_CASE(
    "undo: the command that a repair under a sysroot tells puts the bytes of that image back") {
  const Scene scene("refcount-zero");
  const std::string sysroot = scene.folder().path();
  const Ran ran = scene.run({"repair", "--sysroot", sysroot, "/a"});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  const std::string words = "coldchain undo " + scene.path() + ".coldchain-undo --sysroot " +
                            sysroot + " " + scene.path() + "\n";
  CHECK_MESSAGE(ran.err.find(words) != std::string::npos, ran.err);
  const Ran undone =
      scene.run({"undo", scene.path() + ".coldchain-undo", "--sysroot", sysroot, "/a"});
  CHECK_MESSAGE(undone.status == 0, undone.err);
  CHECK(scene.is_as_before());
}

TEST_CASE("repair: a missing backing file is told, with qemu-img's status") {
  const TempFolder folder;
  testing::ImageOptions options;
  options.backing_file = "none";
  options.backing_format = "raw";
  testing::ImageBuilder(options).data(0, 'd').build().write_to(folder / "a");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"check", "-r", "all", "a"}, {"repair", "--dry-run", "a"}}) {
    const auto ran = run_coldchain_in(folder.path(), command);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find("none") != std::string::npos, ran.err);
  }
}

TEST_CASE("repair: what it leaves is named, with what to do") {
  const TempFolder folder;
  testing::write_file(folder / "a", testing::damage("last-data-cluster-cut").image());
  const auto planned = run_coldchain_in(folder.path(), {"repair", "--dry-run", "a"});
  CHECK(planned.status == 2);
  CHECK_MESSAGE(planned.out.find("not repaired: data-past-end: ") != std::string::npos,
                planned.out);
  const auto done = run_coldchain_in(folder.path(), {"repair", "a"});
  CHECK_MESSAGE(done.err.find("not repaired: data-past-end: ") != std::string::npos, done.err);
}

TEST_CASE("repair: two users of one cluster are named by guest range, with the orphan of one") {
  const Scene scene("l2-entry-twice");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"check", "a"}, {"repair", "--dry-run", "a"}, {"repair", "a"}}) {
    const auto ran = scene.run(command);
    CHECK(ran.status != 0);
    CHECK_MESSAGE(
        ran.err.find("is used by guest 0x4000-0x5000 and guest 0x5000-0x6000") != std::string::npos,
        ran.err);
    CHECK_MESSAGE(
        ran.err.find("guest 0x4000-0x5000 may be in unreferenced host") != std::string::npos,
        ran.err);
  }
}

TEST_CASE("repair: a double use that stays is in its status, also where nothing leaks") {
  const TempFolder folder;
  testing::Patient patient(testing::damage("l2-entry-twice").sound.build().flat());
  patient.set(patient.l2_entry(40), patient.at(patient.l2_entry(5)));
  testing::write_file(folder / "a", patient.bytes());
  const auto ran = run_coldchain_in(folder.path(), {"repair", "a"});
  CHECK(ran.status == 2);
  CHECK(ran.out.find("No errors were found") == std::string::npos);
  CHECK_MESSAGE(ran.out.find("1 host clusters are still used twice") != std::string::npos, ran.out);
}

TEST_CASE("repair: an empty plan says why") {
  const auto says = [](const std::string& damage, const std::vector<std::string>& command) {
    return Scene(damage).run(command).out;
  };
  CHECK(says("data-in-l1-table-and-counted", {"repair", "-r", "leaks", "--dry-run", "a"})
            .find("need 'coldchain check -r all'") != std::string::npos);
  CHECK(says("data-file-offset-differs", {"repair", "--dry-run", "a"}).find("need a person") !=
        std::string::npos);
  CHECK(says("l2-entry-dropped", {"repair", "--dry-run", "a"}).find("Nothing would") ==
        std::string::npos);
}

TEST_CASE("check, repair: an interrupted deletion of a snapshot is told, with what ends it") {
  const Scene scene("snapshot-deletion-interrupted");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"check", "a"}, {"repair", "a"}}) {
    const auto ran = scene.run(command);
    CHECK_MESSAGE(ran.err.find("1 lost-snapshot: ") != std::string::npos, ran.err);
    CHECK(ran.err.find("'coldchain repair --free-orphans' ends the deletion") != std::string::npos);
  }
  CHECK(scene.run({"repair", "--free-orphans", "a"}).status == 0);
}
