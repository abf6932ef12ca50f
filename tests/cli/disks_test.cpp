// SPDX-License-Identifier: MIT
// --disk of the verbs that look: a layer is named by its position or its node.
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::run_coldchain;
using testing::TempFolder;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A machine whose disk vda has the layers top, mid and base.
struct Machine {
  TempFolder folder;
  std::string xml = folder / "machine.xml";

  Machine() {
    testing::write_file(folder / "base", std::string(1 << 20, 'x'));
    write("mid", "base", "raw");
    write("top", "mid", "qcow2");
    define("");
  }
  void write(const std::string& name, const std::string& backing, const std::string& format) const {
    ImageOptions options;
    options.backing_file = backing;
    options.backing_format = format;
    ImageBuilder(options).build().write_to(folder / name);
  }
  void define(const std::string& top_attributes) const {
    testing::write_file(xml,
                        "<domain><devices><disk type='file'><driver type='qcow2'/><source file='" +
                            (folder / "top") + "'" + top_attributes +
                            "/><target dev='vda'/><alias name='virtio-disk0'/></disk>"
                            "</devices></domain>");
  }
  [[nodiscard]] testing::Ran run(const std::string& verb, std::vector<std::string> words) const {
    words.insert(words.begin(), {verb, "--disk", xml});
    return run_coldchain(words);
  }
};

}  // namespace

TEST_CASE("disks: a layer is named by its position and by its node") {
  const Machine machine;
  for (const char* word : {"vda[1]", "virtio-disk0[1]"}) {
    const auto info = machine.run("info", {word});
    CHECK(info.status == 0);
    CHECK(contains(info.out, "image: " + (machine.folder / "mid") + "\n"));
    CHECK_FALSE(contains(info.out, "image: " + (machine.folder / "base") + "\n"));
  }
  for (const char* word : {"vda", "vda[0]", "virtio-disk0[2]"})
    CHECK(contains(machine.run("info", {word}).out, "image: " + (machine.folder / "top") + "\n"));
  CHECK(contains(machine.run("info", {"--backing-chain", "vda[1]"}).out,
                 "image: " + (machine.folder / "base") + "\n"));
  CHECK(machine.run("measure", {"-O", "qcow2", "vda[1]"}).out ==
        run_coldchain({"measure", "-O", "qcow2", machine.folder / "mid"}).out);
  CHECK(machine.run("map", {"--output=json", "vda[2]"}).out ==
        run_coldchain({"map", "--output=json", machine.folder / "base"}).out);
}

TEST_CASE("disks: map takes the name of a layer for --layer") {
  const Machine machine;
  const std::string expected =
      run_coldchain({"map", "--output=json", "--layer", "1", machine.folder / "top"}).out;
  for (const char* layer : {"1", "vda[1]", "virtio-disk0[1]"})
    CHECK(machine.run("map", {"--output=json", "--layer", layer, "vda"}).out == expected);
  const auto wrong = machine.run("map", {"--layer", "vda[7]", "vda"});
  CHECK(wrong.status == 1);
  CHECK(contains(wrong.err, "--layer: there is no layer 'vda[7]'"));
}

TEST_CASE("disks: tree shows the nodes, and starts at the layer that is named") {
  const Machine machine;
  const auto text = machine.run("tree", {"vda[1]"});
  CHECK(text.status == 0);
  CHECK(contains(text.out, "disk vda[1]:\n"));
  CHECK(contains(text.out,
                 "\nvda[1] is the node virtio-disk0[1]\nvda[2] is the node virtio-disk0[0]\n"));
  const auto json = nlohmann::json::parse(machine.run("tree", {"--output=json"}).out);
  const auto& layers = json["trees"][0]["layers"];
  CHECK(layers[0]["position"] == "vda[0]");
  CHECK(layers[0]["node"] == "virtio-disk0[2]");
  CHECK_FALSE(layers[0].contains("xml-index"));
}

TEST_CASE("disks: an index of the XML that is not the position is shown beside it") {
  const Machine machine;
  machine.define(" index='4'");
  CHECK(contains(machine.run("tree", {}).out,
                 "vda[0] is the node virtio-disk0[2] and has the index 4 in the XML\n"));
  const auto info = machine.run("info", {"vda[0]"});
  CHECK(info.status == 0);
  CHECK(contains(info.err, "'vda[0]' is a position here; the index of this layer in " +
                               machine.xml + " is 4\n"));
  CHECK(machine.run("info", {"virtio-disk0[2]"}).err.empty());
  CHECK(machine.run("info", {"vda"}).err.empty());
}

TEST_CASE("disks: a target stands above an alias, and a name that is given twice is refused") {
  const Machine machine;
  const auto define = [&](const std::string& one, const std::string& two) {
    const auto disk = [&](const char* file, const char* format, const std::string& names) {
      return std::string("<disk><driver type='") + format + "'/><source file='" +
             (machine.folder / file) + "'/>" + names + "</disk>";
    };
    testing::write_file(machine.xml, "<domain><devices>" + disk("top", "qcow2", one) +
                                         disk("base", "raw", two) + "</devices></domain>");
  };
  define("<target dev='vda'/><alias name='vdb'/>", "<target dev='vdb'/>");
  for (const char* word : {"vdb", "vdb[0]"})
    CHECK(contains(machine.run("info", {word}).out, "image: " + (machine.folder / "base") + "\n"));
  define("<target dev='vda'/><alias name='vda'/>", "<target dev='vdb'/>");
  CHECK(
      contains(machine.run("info", {"vda[2]"}).out, "image: " + (machine.folder / "base") + "\n"));
  define("<target dev='x[1]'/>", "<target dev='vdb'/>");
  CHECK(contains(machine.run("info", {"x[1]"}).out, "image: " + (machine.folder / "top") + "\n"));
  define("<target dev='vda'/>", "<target dev='vda'/>");
  const auto twice = machine.run("info", {"vda"});
  CHECK(twice.status == 1);
  CHECK(contains(twice.err, "the name 'vda' is given twice in the XML"));
}

TEST_CASE("disks: an empty drive that is named is an error") {
  const Machine machine;
  testing::write_file(machine.xml, "<disk device='cdrom'><target dev='hda'/></disk>");
  CHECK(machine.run("tree", {}).status == 0);
  CHECK(machine.run("tree", {"hda"}).status == 1);
}

TEST_CASE("disks: names that do not exist, and options that do not fit, are refused") {
  const Machine machine;
  const auto layer = machine.run("info", {"vda[3]"});
  CHECK(layer.status == 1);
  CHECK(contains(layer.err, "there is no layer 'vda[3]'; the disk has 'vda[0]' to 'vda[2]'"));
  CHECK(contains(machine.run("info", {"vdb[0]"}).err, "there is no disk 'vdb'"));
  CHECK(contains(machine.run("map", {"virtio-disk0"}).err, "there is no disk 'virtio-disk0'"));
  CHECK(machine.run("info", {"--header", "vda"}).status == 1);
  CHECK(machine.run("map", {"-f", "qcow2", "vda"}).status == 1);
  CHECK(machine.run("measure", {}).status == 1);
  CHECK(run_coldchain({"measure", "--size", "1G", "--renumber"}).status == 1);
  CHECK(contains(run_coldchain({"map", "--layer", "vda[1]", machine.folder / "top"}).err,
                 "needs --disk"));
  CHECK(run_coldchain({"map", "--renumber", machine.folder / "top"}).status == 1);
  CHECK(run_coldchain({"info", "--pool", "p=x", machine.folder / "top"}).status == 1);
}
