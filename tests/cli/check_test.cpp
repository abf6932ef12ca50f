// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "fake_world.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::FakeWorld;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;

namespace {

Bytes sound() {
  return ImageBuilder(ImageOptions{}).data(0, 'a').compressed(3, 'c').build().flat();
}

Bytes bytes_from(std::string_view text) {
  return {text_bytes(text).begin(), text_bytes(text).end()};
}

Ran check(std::vector<std::string> arguments, std::map<std::string, Bytes> files,
          bool terminal = false) {
  FakeWorld world;
  world.memory = std::move(files);
  world.terminal = terminal;
  arguments.insert(arguments.begin(), "check");
  const int status = cli::run(arguments, world);
  return {status, world.out_text, world.err_text};
}

}  // namespace

TEST_CASE("check: of a sound image prints qemu-img's summary, golden") {
  const Ran ran = check({"a"}, {{"a", sound()}});
  CHECK(ran.status == 0);
  CHECK(ran.err.empty());
  CHECK(ran.out ==
        "No errors were found on the image.\n"
        "2/16 = 12.50% allocated, 50.00% fragmented, 50.00% compressed clusters\n"
        "Image end offset: 458752\n");
  CHECK(check({"-q", "a"}, {{"a", sound()}}).out.empty());
}

TEST_CASE("check: of a damaged image prints qemu-img's messages and every finding, golden") {
  const Ran ran = check({"--list", "a"}, {{"a", testing::damage("refcount-two").image()}});
  CHECK(ran.status == 2);
  CHECK(ran.err ==
        "Leaked cluster 4 refcount=2 reference=1\n"
        "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000004000 refcount=2\n");
  CHECK(ran.out ==
        R"(
1 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.

1 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
14/1024 = 1.37% allocated, 0.00% fragmented, 0.00% compressed clusters
Image end offset: 81920
3106 leak cluster-leaked: host cluster 4, host 0x4000-0x5000, expected 1, found 2. Lower the refcount, unless the cluster may hold lost data. [-r leaks, all: The refcount is lowered, unless the cluster may hold lost data and --free-orphans is not given.]
3213 corruption l2-entry-copied-wrong: L2 table, guest cluster 3, host 0xf018-0xf020, guest 0x3000-0x4000, entry 0x8000000000004000, found 2. Set the flag by the refcount. [-r all: The flag is set or cleared as the refcount says.]
)");
}

TEST_CASE("check: damage that qemu-img does not look for is told, and decides the status") {
  const Ran ran = check({"a"}, {{"a", testing::damage("data-in-l1-table-and-counted").image()}});
  CHECK(ran.status == 2);
  CHECK(ran.err.find("corruption data-in-metadata: host cluster") != std::string::npos);
  CHECK(ran.out.find("No errors were found") == std::string::npos);
  CHECK(ran.out.find("1 findings that qemu-img does not look for; '--list' shows them.") !=
        std::string::npos);
}

TEST_CASE("check: destroyed compressed data is found with --deep only") {
  const std::map<std::string, Bytes> files = {
      {"a", testing::damage("compressed-data-destroyed").image()}};
  CHECK(check({"a"}, files).status == 0);
  const Ran deep = check({"--deep", "a"}, files);
  CHECK(deep.status == 2);
  CHECK(deep.err.find("compressed-data-bad: L2 table, guest cluster 30") != std::string::npos);
}

TEST_CASE("check: goes on where qemu-img stops, says so and exits with 1") {
  const Ran ran = check({"a"}, {{"a", testing::damage("snapshots-unaligned").image()}});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("coldchain: Check failed: Invalid argument\n") != std::string::npos);
  CHECK(ran.err.find("snapshot-table-unaligned") != std::string::npos);
  CHECK(ran.out.find("Image end offset: ") != std::string::npos);
}

TEST_CASE("check: an image whose backing file is gone is checked all the same, with status 1") {
  ImageOptions options;
  options.backing_file = "gone";
  options.backing_format = "qcow2";
  const std::map<std::string, Bytes> files = {
      {"a", ImageBuilder(options).data(0, 'a').build().flat()}};
  const Ran ran = check({"a"}, files);
  CHECK(ran.status == 1);
  CHECK(ran.out.find("1/16 = 6.25% allocated") != std::string::npos);
  CHECK(ran.err.find("Could not open 'gone'") != std::string::npos);
  CHECK(check({"--no-follow", "a"}, files).status == 0);
  const Ran chain = check({"--backing-chain", "a"}, files);
  CHECK(chain.status == 1);
  CHECK(chain.err.find("fatal link-missing") != std::string::npos);
}

TEST_CASE("check: on a terminal, neighbours that are alike are one line") {
  const std::map<std::string, Bytes> files = {{"a", testing::damage("all-refcounts-zero").image()}};
  const Ran pipe = check({"a"}, files);
  const Ran terminal = check({"--color=never", "a"}, files, true);
  CHECK(pipe.err.find("ERROR cluster 1 refcount=0 reference=1\nERROR cluster 2 ") !=
        std::string::npos);
  CHECK(terminal.err.find("refcount-too-low: host cluster 0 and 19 more") != std::string::npos);
  CHECK(terminal.err.size() * 3 < pipe.err.size());
}

TEST_CASE("check: a raw image has no checks, what cannot be opened is status 1") {
  CHECK(check({"a"}, {{"a", Bytes(512)}}).status == 63);
  CHECK(check({"-f", "qcow2", "a"}, {{"a", Bytes(512)}}).status == 1);
  CHECK(check({"none"}, {{"a", Bytes(512)}}).status == 1);
}

TEST_CASE("check: JSON has qemu-img's members in their order and ours under coldchain") {
  const Ran ran = check({"--output=json", "a"}, {{"a", testing::damage("refcount-two").image()}});
  const auto json = nlohmann::ordered_json::parse(ran.out);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items())
    keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"image-end-offset", "total-clusters", "corruptions",
                                         "check-errors", "leaks", "allocated-clusters", "filename",
                                         "format", "coldchain"});
  const auto& ours = json["coldchain"];
  CHECK(ours["verdict"] == "corrupt");
  REQUIRE(ours["findings"].size() == 2);
  CHECK(ours["findings"][0]["name"] == "cluster-leaked");
  CHECK(ours["findings"][0]["host"]["offset"] == 0x4000);
  CHECK(ours["findings"][1]["guest"]["length"] == 4096);
}

TEST_CASE("check: of many images prints a line each, and the worst status") {
  const std::map<std::string, Bytes> files = {{"a", sound()},
                                              {"b", testing::damage("leaked-cluster").image()},
                                              {"c", testing::damage("refcount-zero").image()},
                                              {"d", Bytes(512)}};
  const Ran ran = check({"a", "b", "c", "d"}, files);
  CHECK(ran.status == 2);
  CHECK(ran.out ==
        "clean              0 errors          0 leaks      0 others  a\n"
        "leaks              0 errors          1 leaks      0 others  b\n"
        "corrupt            2 errors          0 leaks      0 others  c\n"
        "no checks          0 errors          0 leaks      0 others  d\n");
  CHECK(check({"a", "b"}, files).status == 3);
  CHECK(check({"a", "d"}, files).status == 63);
  CHECK(check({"c", "none"}, files).status == 1);
  CHECK(check({"--jobs=1", "a", "b", "c", "d"}, files).out == ran.out);
  const Ran json = check({"--output=json", "a", "b"}, files);
  CHECK(std::count(json.out.begin(), json.out.end(), '\n') == 2);
  CHECK(nlohmann::json::parse(json.out.substr(0, json.out.find('\n')))["filename"] == "a");
}

TEST_CASE("check: of a folder checks its images, not the raw disks") {
  const testing::TempFolder folder;
  ImageBuilder(ImageOptions{}).data(0, 'a').build().write_to(folder / "one");
  ImageBuilder(ImageOptions{}).data(0, 'a').build().write_to(folder / "two");
  testing::write_file(folder / "raw", std::string(512, 'x'));
  const Ran ran = testing::run_coldchain({"check", folder.path()});
  CHECK(ran.status == 0);
  CHECK(std::count(ran.out.begin(), ran.out.end(), '\n') == 2);
}

TEST_CASE("check: an upload is refused by what --deny names") {
  ImageOptions options;
  options.backing_file = "../etc/passwd";
  options.backing_format = "raw";
  const std::map<std::string, Bytes> files = {{"a", ImageBuilder(options).build().flat()}};
  CHECK(check({"--no-follow", "a"}, files).status == 0);
  const Ran denied = check({"--no-follow", "--deny", "upload", "a"}, files);
  CHECK(denied.status == 2);
  CHECK(
      denied.err.find(
          "denied note upload-has-backing: ../etc/passwd. An upload should stand for itself.\n") !=
      std::string::npos);
  CHECK(denied.err.find("denied note upload-name-escapes") != std::string::npos);
  CHECK(denied.out.find("The image is refused: upload-has-backing, upload-name-escapes.") !=
        std::string::npos);
  CHECK(check({"--no-follow", "--deny", "3704,upload-is-encrypted", "a"}, files).status == 0);
  // Whoever denies is not let down by a forgotten option.
  std::map<std::string, Bytes> with_backing = files;
  with_backing["../etc/passwd"] = Bytes(1 << 20);
  CHECK(check({"--deny", "upload-has-backing", "a"}, with_backing).status == 2);
  CHECK(check({"--deny", "nonsense", "a"}, files).status == 1);
}

TEST_CASE("check: a format that is not read is denied, and an error without --deny") {
  const std::map<std::string, Bytes> files = {
      {"a", bytes_from("# x\nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n")}};
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"a"}, {"--no-follow", "a"}, {"--deny", "image-dirty", "a"}}) {
    const Ran ran = check(options, files);
    CHECK(ran.status == 1);
    CHECK(ran.err.find("Could not open 'a': the format is vmdk, and only qcow2 and raw are read") !=
          std::string::npos);
    CHECK(ran.err.find("denied") == std::string::npos);
  }
  const Ran denied = check({"--no-follow", "--deny", "upload", "a"}, files);
  CHECK(denied.status == 2);
  CHECK(denied.err.find("denied note upload-format-not-allowed: vmdk. Refuse it") !=
        std::string::npos);
  CHECK(denied.err.find("Could not open 'a': the format is vmdk") != std::string::npos);
  CHECK(denied.out == "\nThe image is refused: upload-format-not-allowed.\n");
  CHECK(check({"--deny", "upload", "a"}, files).status == 2);
  CHECK(check({"--deny", "upload", "-f", "vmdk", "a"}, files).status == 2);
  const Ran as_raw = check({"--deny", "upload", "-f", "raw", "a"}, files);
  CHECK(as_raw.status == 2);
  CHECK(as_raw.err.find("denied note upload-ambiguous: vmdk (QEMU's probe). Refuse it") !=
        std::string::npos);
  const Ran json = check({"--deny", "upload", "--output=json", "a"}, files);
  CHECK(json.status == 2);
  const auto ours = nlohmann::json::parse(json.out)["coldchain"];
  CHECK(ours["verdict"] == "corrupt");
  CHECK(ours["denied"][0] == "upload-format-not-allowed");
  CHECK(ours["findings"][0]["detail"] == "vmdk");
  CHECK(ours["failures"].size() == 1);
}

TEST_CASE("check: an honest raw disk is told as one where uploads are judged, with status 63") {
  const std::map<std::string, Bytes> files = {{"a", Bytes(70000)}};
  const Ran plain = check({"a"}, files);
  CHECK(plain.status == 63);
  CHECK(plain.err == "coldchain: This image format does not support checks\n");
  CHECK(check({"--output=json", "a"}, files).out.empty());
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"--no-follow"}, {"--deny", "upload"}}) {
    std::vector<std::string> arguments = options;
    arguments.emplace_back("a");
    const Ran ran = check(arguments, files);
    CHECK(ran.status == 63);
    CHECK(ran.out.empty());
    CHECK(ran.err ==
          "coldchain: This image format does not support checks\n"
          "note upload-is-raw: 70000 bytes. Give its format as raw wherever it is used; a guest "
          "can write "
          "anything that a probe looks for.\n");
    arguments.emplace_back("--output=json");
    const Ran json = check(arguments, files);
    CHECK(json.status == 63);
    const auto document = nlohmann::json::parse(json.out);
    CHECK(document["format"] == "raw");
    CHECK(document["coldchain"]["verdict"] == "no checks");
    CHECK(document["coldchain"]["denied"].empty());
    CHECK(document["coldchain"]["findings"][0]["name"] == "upload-is-raw");
  }
  CHECK(check({"--deny", "upload-is-raw", "a"}, files).status == 2);
}

TEST_CASE("check: a raw disk that others could take for another format is denied") {
  Bytes disk(70000);
  std::copy_n(text_bytes("conectix").begin(), 8, disk.end() - 512);
  const Ran ran = check({"--no-follow", "--deny", "upload", "a"}, {{"a", disk}});
  CHECK(ran.status == 2);
  CHECK(ran.err.find("denied note upload-ambiguous: VHD (") == 0);
  CHECK(ran.out == "\nThe image is refused: upload-ambiguous.\n");
  CHECK(check({"--no-follow", "a"}, {{"a", disk}}).status == 63);
  // The window of an image is what counts.
  CHECK(check({"--deny", "upload",
               R"(json:{"driver":"raw","size":"65536","file":{"driver":"file","filename":"a"}})"},
              {{"a", disk}})
            .status == 63);
  // A name decides for QEMU's probe; where the format is given, others may still look at the name.
  CHECK(check({"--deny", "upload", "a.dmg"}, {{"a.dmg", Bytes(512)}}).status == 2);
  CHECK(check({"--deny", "upload", "-f", "raw", "a.dmg"}, {{"a.dmg", Bytes(512)}}).status == 2);
  // libvirt's rule makes a raw disk of an image with a backing file; QEMU's does not.
  ImageOptions options;
  options.backing_file = "/etc/shadow";
  options.backing_format = "raw";
  CHECK(check({"--no-follow", "--probe=libvirt", "--deny", "upload", "a"},
              {{"a", ImageBuilder(options).build().flat()}})
            .status == 2);
}

TEST_CASE("check: a qcow2 file that ends as another format is denied as a raw disk is") {
  for (const char* sign : {"conectix", "koly"}) {
    Bytes image = ImageBuilder(ImageOptions{}).data(0, 'a').build().flat();
    CHECK(check({"--no-follow", "--deny", "upload", "a"}, {{"a", image}}).status == 0);
    image.resize(image.size() + 65536);
    std::copy_n(text_bytes(sign).begin(), text_bytes(sign).size(), image.end() - 512);
    const Ran ran = check({"--no-follow", "--deny", "upload", "a"}, {{"a", image}});
    CHECK(ran.status == 2);
    CHECK_MESSAGE(ran.err.find("upload-ambiguous: ") != std::string::npos, ran.err);
  }
  // In the middle it means nothing.
  Bytes image = ImageBuilder(ImageOptions{}).data(0, 'a').build().flat();
  image.resize(image.size() + 65536);
  std::copy_n(text_bytes("conectix").begin(), 8, image.end() - 4096);
  CHECK(check({"--no-follow", "--deny", "upload", "a"}, {{"a", image}}).status == 0);
}

TEST_CASE("check: what is denied decides the status, whatever else cannot be checked") {
  ImageOptions options;
  options.backing_file = "gone";
  options.backing_format = "qcow2";
  ImageBuilder unknown(options);
  unknown.patch_header([](qcow2::Header& h) { h.incompatible_features |= 1ULL << 40; });
  const std::map<std::string, Bytes> files = {{"a", ImageBuilder(options).build().flat()},
                                              {"b", unknown.build().flat()},
                                              {"c", Bytes(512)},
                                              {"d", bytes_from("KDMV")}};
  CHECK(check({"--deny", "upload", "a"}, files).status == 2);
  CHECK(check({"--no-follow", "--deny", "upload", "b"}, files).status == 2);
  const Ran many = check({"--no-follow", "--deny", "upload", "none", "d", "c"}, files);
  CHECK(many.status == 2);
  CHECK(many.out.find("corrupt            0 errors          0 leaks      0 others  d: denied "
                      "upload-format-not-allowed: Could not open 'd'") != std::string::npos);
  CHECK(many.out.find("no checks          0 errors          0 leaks      0 others  c: "
                      "upload-is-raw\n") != std::string::npos);
  CHECK(check({"--no-follow", "--deny", "upload", "none", "c"}, files).status == 1);
  CHECK(check({"--no-follow", "--deny", "upload", "c", "c"}, files).status == 63);
}

TEST_CASE("check: of a folder looks at every file where uploads are judged") {
  const testing::TempFolder folder;
  ImageBuilder(ImageOptions{}).data(0, 'a').build().write_to(folder / "one");
  CHECK(testing::run_coldchain({"check", "--deny", "upload", folder.path()}).status == 0);
  testing::write_file(folder / "raw", std::string(512, 'x'));
  const Ran honest = testing::run_coldchain({"check", "--deny", "upload", folder.path()});
  CHECK(honest.status == 63);
  CHECK(std::count(honest.out.begin(), honest.out.end(), '\n') == 2);
  testing::write_file(folder / "vmdk", "version=2\n");
  const Ran denied = testing::run_coldchain({"check", "--deny", "upload", folder.path()});
  CHECK(denied.status == 2);
  CHECK(denied.out.find("denied upload-format-not-allowed") != std::string::npos);
  CHECK(testing::run_coldchain({"check", folder.path()}).status == 0);
}

TEST_CASE("check: of a folder whose name has a protocol judges the files in it, not others") {
  const testing::TempFolder folder;
  const auto judge = [&](const std::string& name) {
    return testing::run_coldchain_in(folder.path(),
                                     {"check", "--no-follow", "--deny", "upload", name});
  };
  for (const char* name : {"good", "file:good", "a:b", "json:{"})
    std::filesystem::create_directory(folder / name);
  ImageBuilder(ImageOptions{}).build().write_to(folder / "good/evil.qcow2");
  ImageOptions options;
  options.backing_file = "/etc/shadow";
  options.backing_format = "raw";
  for (const char* name : {"file:good/evil.qcow2", "a:b/x.qcow2", "json:{/x.qcow2"})
    ImageBuilder(options).build().write_to(folder / name);
  for (const char* name : {"file:good", "a:b", "json:{"}) {
    const Ran ran = judge(name);
    CHECK_MESSAGE(ran.status == 2, ran.out, ran.err);
    CHECK(ran.out.find("upload-has-backing") != std::string::npos);
  }
  CHECK(judge("good").status == 0);
  // As a name that is typed it is parsed, as ever.
  CHECK(judge("file:good/evil.qcow2").status == 0);
}

TEST_CASE("check: a backing chain with --no-follow is the top alone") {
  ImageOptions options;
  options.backing_file = "gone";
  options.backing_format = "qcow2";
  const Ran ran =
      check({"--backing-chain", "--no-follow", "a"}, {{"a", ImageBuilder(options).build().flat()}});
  CHECK(ran.status == 0);
  CHECK(ran.err.find("does not support checks") == std::string::npos);
}

TEST_CASE("check: a huge, nearly empty file costs what is in it") {
  const testing::TempFolder folder;
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 4096;
  ImageBuilder(options).data(0, 'a').build().write_to(folder / "a");
  std::filesystem::resize_file(folder / "a", 8ULL << 40);  // 2^34 clusters
  CHECK(testing::run_coldchain({"check", folder / "a"}).status == 0);
  CHECK(testing::run_coldchain({"layout", folder / "a"}).status == 0);
}

TEST_CASE("check: each reason to refuse an upload is found") {
  const auto denied = [](const std::function<void(qcow2::Header&)>& change) {
    ImageBuilder builder{ImageOptions{}};
    builder.patch_header(change);
    return check({"--no-follow", "--deny", "upload", "a"}, {{"a", builder.build().flat()}}).err;
  };
  CHECK(denied([](qcow2::Header& h) { h.crypt_method = 1; }).find("upload-is-encrypted") !=
        std::string::npos);
  ImageOptions huge;
  huge.cluster_bits = 21;
  huge.size = (64ULL << 40) + 512;
  CHECK(check({"--no-follow", "--deny", "upload", "a"}, {{"a", ImageBuilder(huge).build().flat()}})
            .err.find("upload-size-absurd") != std::string::npos);
  ImageOptions external;
  external.data_file = "/dev/sda";
  const Ran data = check({"--no-follow", "--deny", "upload", "a"},
                         {{"a", ImageBuilder(external).build().flat()}});
  CHECK(data.err.find("upload-has-data-file: /dev/sda") != std::string::npos);
  CHECK(data.err.find("upload-name-escapes: /dev/sda") != std::string::npos);
}

TEST_CASE("layout: ranges cover the file once, and the totals add up to its size") {
  for (const testing::Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    FakeWorld world;
    world.memory = {{"a", damage.image()}};
    (void)cli::run({"layout", "--output=json", "a"}, world);
    const auto json = nlohmann::json::parse(world.out_text);
    std::uint64_t at = 0;
    for (const auto& range : json["ranges"]) {
      CHECK(range["offset"] == at);
      at += range["length"].get<std::uint64_t>();
    }
    CHECK(at == world.memory["a"].size());
    std::uint64_t sum = 0;
    for (const auto& [owner, bytes] : json["totals"].items())
      sum += bytes.get<std::uint64_t>();
    CHECK(sum == at);
  }
}

TEST_CASE("layout: names leaks, free space and compressed data") {
  FakeWorld world;
  world.memory = {{"a", testing::damage("leaked-cluster").image()}, {"b", sound()}};
  CHECK(cli::run({"layout", "a"}, world) == 0);
  CHECK(world.out_text.find("leaked") != std::string::npos);
  CHECK(cli::run({"layout", "b"}, world) == 0);
  CHECK(world.out_text.find("compressed data") != std::string::npos);
  world.memory = {{"a", testing::damage("refcount-zero").image()}};
  CHECK(cli::run({"layout", "a"}, world) == 2);
}

TEST_CASE(
    "layout: of an image that QEMU refuses for a header extension is printed, with status 1") {
  FakeWorld world;
  for (const char* name : {"encryption-header-without-luks", "encryption-header-with-aes",
                           "bitmaps-extension-too-short", "bitmap-extra-data"}) {
    CAPTURE(name);
    world.out_text.clear();
    world.err_text.clear();
    world.memory["a"] = testing::damage(name).image();
    CHECK(cli::run({"layout", "a"}, world) == 1);
    CHECK_FALSE(world.out_text.empty());
    CHECK_MESSAGE(world.err_text.find("QEMU refuses the image") != std::string::npos,
                  world.err_text);
    CHECK(cli::run({"check", "a"}, world) == 1);
  }
}

TEST_CASE("check: leaks may be lost data where tables are lost, and are harmless elsewhere") {
  const testing::TempFolder folder;
  testing::write_file(folder / "lost", testing::damage("l2-table-lost").image());
  testing::write_file(folder / "leak", testing::damage("leaked-cluster").image());
  const auto lost = testing::run_coldchain_in(folder.path(), {"check", "lost"});
  CHECK_MESSAGE(lost.out.find("They may hold lost data") != std::string::npos, lost.out);
  CHECK_MESSAGE(lost.err.find("1 l2-table-empty: ") != std::string::npos, lost.err);
  const auto leak = testing::run_coldchain_in(folder.path(), {"check", "leak"});
  CHECK_MESSAGE(leak.out.find("no harm to data") != std::string::npos, leak.out);
}
