// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::run_coldchain;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

std::map<std::string, Bytes> some_files() {
  ImageOptions options;
  options.backing_file = "base";
  options.backing_format = "raw";
  std::map<std::string, Bytes> files;
  files["mid"] = ImageBuilder(options).data(0, 1).data(1, 1).build().flat();
  options.backing_file = "mid";
  options.backing_format = "qcow2";
  files["top"] = ImageBuilder(options).data(0, 1).zero(2).build().flat();
  files["base"] = Bytes(512 << 10);
  return files;
}

testing::Ran tree_of(std::vector<std::string> arguments, std::map<std::string, Bytes> files,
                     std::map<std::string, std::string> variables = {}, bool terminal = false) {
  testing::FakeWorld world;
  world.memory = std::move(files);
  world.variables = std::move(variables);
  world.terminal = terminal;
  arguments.insert(arguments.begin(), "tree");
  const int status = cli::run(arguments, world);
  return {status, world.out_text, world.err_text};
}

// A document in each line.
std::vector<nlohmann::json> lines_of(const std::string& text) {
  std::vector<nlohmann::json> documents;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    documents.push_back(nlohmann::json::parse(line));
  return documents;
}

}  // namespace

TEST_CASE("tree: of a chain for people, golden") {
  const auto ran = tree_of({"top"}, some_files(), {{"LANG", "en_US.UTF-8"}});
  CHECK(ran.status == 0);
  CHECK(
      ran.out ==
      R"(#  IMAGE       FORMAT     CAPACITY  ALLOCATION  PHYSICAL  IMAGE END  OWN DATA  COMPRESSED  OWN ZERO      PROVIDES
0  top         qcow2 1.1     1 MiB     384 KiB   384 KiB    384 KiB    64 KiB         0 B    64 KiB  128 KiB  12%
1  └─ mid      qcow2 1.1     1 MiB     448 KiB   448 KiB    448 KiB   128 KiB         0 B       0 B   64 KiB   6%
2     └─ base  raw         512 KiB     512 KiB   512 KiB          -   512 KiB         0 B       0 B  320 KiB  31%
[2] note overlay-longer: 1048576 over 524288 bytes
)");
}

TEST_CASE("tree: draws in ASCII where the locale is not UTF-8, and in colour only on a terminal") {
  CHECK(tree_of({"top"}, some_files(), {{"LC_ALL", "C"}}).out.find("1  `- mid") !=
        std::string::npos);
  CHECK(tree_of({"top"}, some_files()).out.find('\x1b') == std::string::npos);
  CHECK(tree_of({"top"}, some_files(), {}, true).out.find("\x1b[1m") != std::string::npos);
  CHECK(tree_of({"top"}, some_files(), {{"NO_COLOR", "1"}}, true).out.find('\x1b') ==
        std::string::npos);
  CHECK(tree_of({"--color=always", "top"}, some_files()).out.find('\x1b') != std::string::npos);
  CHECK(tree_of({"--color=never", "top"}, some_files(), {}, true).out.find('\x1b') ==
        std::string::npos);
}

TEST_CASE("tree: a broken link does not end the run; what can be read is shown, the status is 1") {
  auto files = some_files();
  files.erase("mid");
  const auto ran = tree_of({"top"}, files);
  CHECK(ran.status == 1);
  CHECK(ran.out.find("[1] fatal link-missing: No such file or directory") != std::string::npos);
  CHECK(ran.out.find("0  top") != std::string::npos);
  const auto both = tree_of({"none", "base"}, files);
  CHECK(both.status == 1);
  CHECK(both.out.find("base") != std::string::npos);
}

TEST_CASE("tree: JSON has a schema, a version and the layers side by side") {
  const auto json =
      nlohmann::json::parse(tree_of({"--output=json", "top", "base"}, some_files()).out);
  CHECK(json["schema"] == "coldchain.tree");
  CHECK(json["version"] == 1);
  REQUIRE(json["trees"].size() == 2);
  const auto& layers = json["trees"][0]["layers"];
  REQUIRE(layers.size() == 3);
  CHECK(json["trees"][0]["image"] == "top");
  CHECK(json["trees"][0]["absent"] == 1 << 19);
  CHECK(layers[0]["provides"]["total"] == 131072);
  CHECK(layers[0]["children"][0] == 1);
  CHECK(layers[1]["filename"] == "mid");
  CHECK(layers[2]["own"]["data"] == 512 << 10);
  CHECK(layers[2]["children"].empty());
  CHECK(layers[0]["features"].empty());
  CHECK(layers[0]["permissions"]["mode"] == "0600");
  CHECK(layers[0]["timestamps"].contains("mtime"));
  const auto missing = nlohmann::json::parse(tree_of({"--output=json", "none"}, some_files()).out);
  CHECK(missing["trees"][0]["error"].get<std::string>().starts_with("Could not open 'none'"));
}

TEST_CASE("tree: --fast reads headers only") {
  const auto json =
      nlohmann::json::parse(tree_of({"--fast", "--output=json", "top"}, some_files()).out);
  const auto& top = json["trees"][0]["layers"][0];
  CHECK(top["capacity"] == 1 << 20);
  CHECK_FALSE(top.contains("own"));
  CHECK_FALSE(top.contains("provides"));
  CHECK_FALSE(top.contains("image-end"));
}

TEST_CASE("tree: --details tells cluster size, features, permissions") {
  const auto ran = tree_of({"--details", "top"}, some_files());
  CHECK(ran.out.find("cluster size 64 KiB, refcount bits 16") != std::string::npos);
  CHECK(ran.out.find("mode 0600, owner 0, group 0") != std::string::npos);
}

TEST_CASE("tree: of a folder draws bases above their overlays and tells the rest") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{}).data(0, 1).build().write_to(folder / "base");
  ImageOptions options;
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "one");
  ImageBuilder(options).build().write_to(folder / "two");
  options.backing_file = "none";
  ImageBuilder(options).build().write_to(folder / "orphan");
  testing::write_file(folder / "notes", "x");
  const auto ran = run_coldchain({"tree", folder.path()});
  CHECK(ran.status == 1);
  CHECK(ran.out.find("shared by 2") != std::string::npos);
  CHECK(ran.out.find("|- " + (folder / "one")) != std::string::npos);
  CHECK(ran.out.find("`- " + (folder / "two")) != std::string::npos);
  CHECK(ran.out.find("fatal link-missing") != std::string::npos);
  CHECK(ran.out.find("images: 4, leaves: 2, shared: 1, orphans: 1, in loops: 0, unused: 0; other "
                     "files: 1\n") != std::string::npos);
  const auto json = lines_of(run_coldchain({"tree", "--output=json", folder.path()}).out);
  REQUIRE(json.size() == 5);
  CHECK(json[0]["schema"] == "coldchain.forest-image");
  CHECK(json[0]["overlays"].size() == 2);
  CHECK(json[0].contains("own"));
  CHECK(json[0]["kinds"] == nlohmann::json{"shared"});
  CHECK(json[1]["kinds"] == nlohmann::json{"leaf"});
  CHECK(json[2]["kinds"] == nlohmann::json{"orphan"});
  CHECK(json[4]["schema"] == "coldchain.forest");
  CHECK(json[4]["images"] == 4);
  const auto fast = lines_of(run_coldchain({"tree", "--fast", "--output=json", folder.path()}).out);
  CHECK_FALSE(fast[0].contains("own"));
  CHECK(json[0]["cluster-size"] == 65536);
  CHECK(run_coldchain({"tree", "--root", folder.path(), folder.path()}).err.empty());
  CHECK(run_coldchain({"tree", "--sysroot", folder.path(), "/usr"}).err.find("does not lie in") !=
        std::string::npos);
}

namespace {

// disk/images/{a,b,…}, reached through the link mnt, too, and a folder outside.
struct Mounted {
  TempFolder folder;
  Mounted() {
    std::filesystem::create_directories(folder / "disk/images");
    std::filesystem::create_directories(folder / "host");
    std::filesystem::create_symlink("disk", folder / "mnt");
    std::filesystem::create_symlink(folder / "host", folder / "disk/escape");
    write("disk/images/base", "");
    write("disk/images/top", "/images/base");
    write("host/secret", "");
  }
  void write(const std::string& name, const std::string& backing) const {
    ImageOptions options;
    options.backing_file = backing;
    options.backing_format = backing.empty() ? "" : "qcow2";
    ImageBuilder(options).build().write_to(folder / name);
  }
};

}  // namespace

TEST_CASE("tree, check: a folder in a root or sysroot is the same one however it is spelled") {
  const Mounted scene;
  for (const char* verb : {"tree", "check"}) {
    for (const std::string& sysroot : {scene.folder / "mnt", scene.folder / "disk"}) {
      for (const std::string& given :
           {std::string("."), scene.folder / "mnt/images", scene.folder / "disk/images"}) {
        CAPTURE(verb);
        CAPTURE(given);
        const auto inside =
            run_coldchain_in(scene.folder / "mnt/images", {verb, "--sysroot", sysroot, given});
        CHECK(inside.status == 0);
        CHECK(inside.out.find(sysroot + "/images/top") != std::string::npos);
        const auto rooted =
            run_coldchain_in(scene.folder / "mnt/images", {verb, "--root", sysroot, given});
        CHECK(rooted.out.find("/top") != std::string::npos);
        CHECK(rooted.err.find("lies outside") == std::string::npos);
      }
    }
  }
}

TEST_CASE("tree, check: a folder that leads out of a root or sysroot is refused") {
  const Mounted scene;
  for (const char* verb : {"tree", "check"}) {
    for (const char* option : {"--root", "--sysroot"}) {
      for (const std::string& given :
           {scene.folder / "disk/escape", scene.folder / "host", scene.folder / "disk/../host"}) {
        CAPTURE(verb);
        CAPTURE(given);
        const auto ran = run_coldchain({verb, option, scene.folder / "disk", given});
        CHECK(ran.status == 1);
        CHECK(ran.err.find("does not lie in") != std::string::npos);
        CHECK(ran.out.find("secret") == std::string::npos);
      }
    }
  }
}

TEST_CASE("tree: symbolic links in a folder lead where they lead inside a sysroot") {
  const Mounted scene;
  scene.write("disk/other", "");
  std::filesystem::create_symlink("/other", scene.folder / "disk/images/inside");
  std::filesystem::create_symlink(scene.folder / "host/secret", scene.folder / "disk/images/out");
  const auto ran =
      run_coldchain({"tree", "--sysroot", scene.folder / "disk", scene.folder / "disk/images"});
  CHECK(ran.status == 0);
  CHECK(ran.out.find("/images/inside") != std::string::npos);
  CHECK(ran.out.find("images: 3, ") != std::string::npos);
}

TEST_CASE(
    "tree: a relative operand outside a sysroot is refused, and the message says what to do") {
  const Mounted scene;
  const auto ran =
      run_coldchain_in(scene.folder / "mnt/images",
                       {"tree", "--sysroot", scene.folder / "mnt", "../../host/secret"});
  CHECK(ran.status == 1);
  CHECK(ran.err.find("'../../host/secret': lies outside the sysroot '" + (scene.folder / "mnt") +
                     "': name it by its path beneath that directory") != std::string::npos);
}

TEST_CASE("tree: of a folder refuses options that are for images") {
  const TempFolder folder;
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"--object", "secret,id=s"},
        {"-f", "raw"},
        {"--probe=libvirt"},
        {"--details"}}) {
    std::vector<std::string> arguments = {"tree", folder.path()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    CHECK(run_coldchain(arguments).status == 1);
  }
}

TEST_CASE("tree: a raw file that does not end at a sector is told, with both sizes") {
  const TempFolder folder;
  testing::write_file(folder / "raw", std::string(70001, 'r'));
  const auto ran = testing::run_coldchain({"tree", "-f", "raw", folder / "raw"});
  CHECK(ran.status == 0);
  CHECK_MESSAGE(ran.out.find("raw-size-unaligned: 70001 bytes, of which QEMU shows 70144") !=
                    std::string::npos,
                ran.out);
}

TEST_CASE("tree: of a folder names what an image is to the others, and a file with two names") {
  const TempFolder folder;
  ImageOptions options;
  ImageBuilder(options).build().write_to(folder / "unused");
  ImageBuilder(options).build().write_to(folder / "base");
  std::filesystem::create_hard_link(folder / "base", folder / "copy");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "leaf");
  options.backing_file = "loop-two";
  ImageBuilder(options).build().write_to(folder / "loop-one");
  options.backing_file = "loop-one";
  ImageBuilder(options).build().write_to(folder / "loop-two");
  const auto ran = run_coldchain({"tree", "--fast", folder.path()});
  CHECK(ran.status == 1);
  CHECK(ran.out.find("images: 5, leaves: 1, shared: 0, orphans: 0, in loops: 2, unused: 1; other "
                     "files: 0\n") != std::string::npos);
  CHECK(ran.out.find((folder / "base") + ": the same file as " + (folder / "copy") + "\n") !=
        std::string::npos);
  const auto json = lines_of(run_coldchain({"tree", "--fast", "--output=json", folder.path()}).out);
  REQUIRE(json.size() == 6);
  CHECK(json[0]["other-paths"][0]["path"] == folder / "copy");
  CHECK(json[4]["kinds"] == nlohmann::json{"unused"});
}

TEST_CASE("tree: --glob chooses files by their names, and follows links to files of other names") {
  const TempFolder folder;
  ImageOptions options;
  ImageBuilder(options).build().write_to(folder / "base");
  ImageBuilder(options).build().write_to(folder / "other.img");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "top.qcow2");
  const auto json =
      lines_of(run_coldchain({"tree", "--output=json", "--glob", "*.qcow2", folder.path()}).out);
  REQUIRE(json.size() == 3);
  CHECK(json[0]["path"] == folder / "base");
  CHECK(json[0]["in-scan"] == false);
  CHECK(json[1]["path"] == folder / "top.qcow2");
  CHECK(run_coldchain({"tree", "--glob", "*", folder / "base"}).status == 1);
}

TEST_CASE("tree: shows images together with the folders that their links lead into") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "bases");
  ImageOptions options;
  ImageBuilder(options).build().write_to(folder / "bases/base");
  options.backing_file = "bases/base";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "top");
  const auto json =
      lines_of(run_coldchain({"tree", "--output=json", folder / "bases", folder / "top"}).out);
  REQUIRE(json.size() == 3);
  CHECK(json[0]["overlays"] == nlohmann::json{1});
  CHECK(json[1]["in-scan"] == true);
  const auto missing = run_coldchain({"tree", folder / "bases", folder / "nothing"});
  CHECK(missing.status == 1);
  CHECK(missing.err.find("nothing") != std::string::npos);
}

TEST_CASE("tree: recursive XML has every layer with its sizes and features, and ends the chain") {
  const auto xml = [](std::vector<std::string> words) {
    std::string text = tree_of(std::move(words), some_files()).out;
    for (const char* element : {"permissions", "timestamps"}) {
      const std::string end = "</" + std::string(element) + ">\n";
      for (std::size_t at = text.find(element); at != std::string::npos; at = text.find(element)) {
        const std::size_t begin = text.rfind('\n', at) + 1;
        text.erase(begin, text.find(end, at) + end.size() - begin);
      }
    }
    const std::string folder = std::filesystem::current_path().string();
    for (std::size_t at = text.find(folder); at != std::string::npos; at = text.find(folder))
      text.replace(at, folder.size(), "/d");
    return text;
  };
  CHECK(xml({"--xml=volume", "--recursive", "top"}) == R"(<volume type='file'>
  <name>top</name>
  <key>/d/top</key>
  <capacity unit='bytes'>1048576</capacity>
  <allocation unit='bytes'>393216</allocation>
  <physical unit='bytes'>393216</physical>
  <target>
    <path>/d/top</path>
    <format type='qcow2'/>
    <compat>1.1</compat>
    <clusterSize unit='B'>65536</clusterSize>
    <features/>
  </target>
  <backingStore>
    <path>/d/mid</path>
    <capacity unit='bytes'>1048576</capacity>
    <allocation unit='bytes'>458752</allocation>
    <physical unit='bytes'>458752</physical>
    <format type='qcow2'/>
    <compat>1.1</compat>
    <clusterSize unit='B'>65536</clusterSize>
    <features/>
    <backingStore>
      <path>/d/base</path>
      <capacity unit='bytes'>524288</capacity>
      <allocation unit='bytes'>524288</allocation>
      <physical unit='bytes'>524288</physical>
      <format type='raw'/>
      <backingStore/>
    </backingStore>
  </backingStore>
</volume>
)");
  CHECK(xml({"--xml=domain", "--recursive", "mid"}) == R"(<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'>
    <compat>1.1</compat>
    <features/>
  </driver>
  <source file='/d/mid'/>
  <capacity unit='bytes'>1048576</capacity>
  <allocation unit='bytes'>458752</allocation>
  <physical unit='bytes'>458752</physical>
  <backingStore type='file' index='1'>
    <format type='raw'/>
    <source file='/d/base'/>
    <capacity unit='bytes'>524288</capacity>
    <allocation unit='bytes'>524288</allocation>
    <physical unit='bytes'>524288</physical>
    <backingStore/>
  </backingStore>
  <target dev='vda'/>
</disk>
)");
  CHECK(xml({"--output=xml", "mid"}).find("<volume type='file'>\n  <name>mid</name>\n") == 0);
}

TEST_CASE(
    "tree: recursive XML has plain layers in the folder of the volume, however it is spelled") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "other");
  const auto write = [&](const std::string& name, const std::string& backing) {
    ImageOptions options;
    options.backing_file = backing;
    options.backing_format = backing.empty() ? "" : "qcow2";
    ImageBuilder(options).build().write_to(folder / name);
  };
  write("other/far", "");
  write("base", "other/far");
  write("mid", "./base");
  write("top", "other/../mid");
  const std::string xml =
      run_coldchain({"tree", "--xml=volume", "--recursive", folder / "top"}).out;
  CHECK(xml.find("<backingStore>\n    <path>" + (folder / "other/../mid")) != std::string::npos);
  CHECK(xml.find("<backingStore>\n      <path>" + (folder / "other/.././base")) !=
        std::string::npos);
  CHECK(xml.find("<backingStore type='file'>\n        <path>") != std::string::npos);
}

TEST_CASE("tree: a chain in a folder may be as long as the folder has files") {
  const TempFolder folder;
  for (int i = 0; i < 40; ++i) {
    ImageOptions options;
    options.backing_file = i == 0 ? "" : fmt::format("image{:02}", i - 1);
    options.backing_format = i == 0 ? "" : "qcow2";
    ImageBuilder(options).build().write_to(folder / fmt::format("image{:02}", i));
  }
  const std::string out = run_coldchain({"tree", "--fast", folder.path()}).out;
  const auto indent_of = [&](const char* name) {
    const std::size_t at = out.find(folder / name);
    return at - (out.rfind('\n', at) + 1);
  };
  CHECK(indent_of("image03") > indent_of("image02"));
  CHECK(indent_of("image39") == indent_of("image38"));
}

TEST_CASE("tree: forms of output that do not go together are refused") {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--xml=volume", "--output=json"},
                                             {"--recursive"},
                                             {"--strict"},
                                             {"--watermark", "1G", "--fast"},
                                             {"--output=domstats", "--fast"},
                                             {"--xml=volume", "--recursive", "--fast"},
                                             {"--watermark", "1G", "--xml=domain"},
                                             {"--watermark", "many"},
                                             {"--watermark", "1G", "--extent", "0"},
                                             {"--xml=none"},
                                             {"--output=sarif"}}) {
    std::vector<std::string> command = words;
    command.emplace_back("top");
    const auto ran = tree_of(command, some_files());
    CHECK_MESSAGE(ran.status == 1, words.front());
    CHECK(ran.out.empty());
    CHECK_FALSE(ran.err.empty());
  }
  const TempFolder folder;
  for (const char* word : {"--output=xml", "--output=domstats", "--xml=domain", "--watermark=1G"})
    CHECK(run_coldchain({"tree", word, folder.path()}).status == 1);
}

TEST_CASE("tree: --disk shows the disks of a machine with totals; shared files count once") {
  auto files = some_files();
  const std::string xml = R"(<domain><devices>
    <disk type='file'><driver type='qcow2'/><source file='top'/><target dev='vda'/></disk>
    <disk type='file'><driver type='qcow2'/><source file='mid'/><target dev='vdb'/></disk>
    <disk type='volume'><source pool='p' volume='base'/><target dev='vdc'/></disk>
    <disk type='file' device='cdrom'><target dev='hda'/></disk></devices></domain>)";
  files["xml"] = Bytes(reinterpret_cast<const std::byte*>(xml.data()),
                       reinterpret_cast<const std::byte*>(xml.data() + xml.size()));
  const auto ran = tree_of({"--disk", "xml", "--pool", "p=.", "--fast"}, files);
  CHECK(ran.status == 1);  // in memory, "./base" is no file
  CHECK(ran.err.find("Could not open 'vdc'") != std::string::npos);
  CHECK(ran.out.find("disk vda:\n") == 0);
  CHECK(ran.out.find("\n\ndisk vdb:\n") != std::string::npos);
  CHECK(
      ran.out.ends_with("\n\ndisks: 2, files: 3, capacity: 2 MiB, allocation: 1.31 MiB, physical: "
                        "1.31 MiB\n"));
  const auto one = nlohmann::json::parse(
      tree_of({"--disk", "xml", "--fast", "--output=json", "vdb"}, files).out);
  REQUIRE(one["trees"].size() == 1);
  CHECK(one["trees"][0]["image"] == "vdb");
  CHECK(one["totals"]["files"] == 2);
  CHECK(tree_of({"--disk", "xml", "vdx"}, files).err == "coldchain: xml: there is no disk 'vdx'\n");
  CHECK(tree_of({"--disk", "xml", "vdc"}, files)
            .err.find("volume 'base' is in the pool 'p', whose folder is not known") !=
        std::string::npos);
  CHECK(tree_of({"--disk", "top"}, files).err.find("is not XML") != std::string::npos);
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--disk", "xml", "-f", "qcow2"},
                                             {"--disk", "xml", "--xml=domain"},
                                             {"--disk", "xml", "--pool", "=x"},
                                             {"--pool", "p=.", "top"},
                                             {}})
    CHECK(tree_of(words, files).status == 1);
}

TEST_CASE(
    "tree: a chain that the definition gives stands above the headers, and differences show") {
  auto files = some_files();
  const auto with = [&](const std::string& chain) {
    const std::string xml =
        "<disk><driver type='qcow2'/><source file='top'/>" + chain + "<target dev='vda'/></disk>";
    files["xml"] = Bytes(reinterpret_cast<const std::byte*>(xml.data()),
                         reinterpret_cast<const std::byte*>(xml.data() + xml.size()));
    return tree_of({"--disk", "xml"}, files);
  };
  const std::string base =
      "<backingStore><format type='raw'/><source file='base'/><backingStore/></backingStore>";
  const auto same =
      with("<backingStore><format type='qcow2'/><source file='mid'/>" + base + "</backingStore>");
  CHECK(same.status == 0);
  CHECK(same.out.find("definition") == std::string::npos);
  const auto other = with(base);
  CHECK(other.out.find("[0] note link-definition-differs: the image records 'mid', and the "
                       "definition names 'base'.") != std::string::npos);
  CHECK(other.out.find("mid ") == std::string::npos);
  const auto ended = with("<backingStore/>");
  CHECK(ended.out.find("the image records 'mid', and the definition ends the chain above it") !=
        std::string::npos);
  const auto format = with("<backingStore><format type='raw'/><source file='mid'/></backingStore>");
  CHECK(format.out.find("the image records the format qcow2 for 'mid', and the definition raw") !=
        std::string::npos);
}
