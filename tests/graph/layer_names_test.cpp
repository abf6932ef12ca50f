// SPDX-License-Identifier: MIT
#include <coldchain/graph/layer_names.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::graph;

namespace {

// A machine that was defined with b, then got overlays: c over b, d over c.
DomainDisk disk_of(const std::string& layers) {
  return parse_domain("<disk>" + layers + "<target dev='hda'/><alias name='ide0-0-0'/></disk>")
      .value()
      .front();
}

std::vector<std::string> nodes_of(const std::vector<LayerName>& names) {
  std::vector<std::string> nodes;
  for (const LayerName& name : names)
    nodes.push_back(name.node);
  return nodes;
}

}  // namespace

TEST_CASE("layer_names: positions count from the top, nodes from the last backing file") {
  const DomainDisk disk = disk_of("<source file='c'/>");
  const auto names = layer_names(disk, 2, false);  // b is in the header of c
  CHECK(names[0].position == "hda[0]");
  CHECK(names[1].position == "hda[1]");
  CHECK(nodes_of(names) == std::vector<std::string>{"ide0-0-0[1]", "ide0-0-0[0]"});
  CHECK(find_layer(names, "hda").value() == 0);
  CHECK(find_layer(names, "hda[0]").value() == 0);
  CHECK(find_layer(names, "ide0-0-0[0]").value() == 1);
}

TEST_CASE("layer_names: numbers of the XML stay, and none is used twice") {
  const DomainDisk disk = disk_of(
      "<driver node='[4]'/><source file='d'/>"
      "<backingStore node='1'><source file='c'/>"
      "<backingStore><format type='raw'/><source file='b'/></backingStore></backingStore>");
  CHECK(nodes_of(layer_names(disk, 4, false)) ==
        std::vector<std::string>{"ide0-0-0[4]", "ide0-0-0[1]", "ide0-0-0[6]", "ide0-0-0[5]"});
  CHECK(nodes_of(layer_names(disk, 3, true)) ==
        std::vector<std::string>{"ide0-0-0[2]", "ide0-0-0[1]", "ide0-0-0[0]"});
}

TEST_CASE("layer_names: an index of the XML is listed where it is not the position") {
  const DomainDisk disk = disk_of(
      "<source file='d' index='3'/><backingStore index='1'><source file='c'/></backingStore>");
  const auto names = layer_names(disk, 2, false);
  CHECK(names[0].index == 3);
  CHECK_FALSE(names[1].index);
}

TEST_CASE("layer_names: a word that names no layer is an error that lists the names") {
  const DomainDisk disk = disk_of("<source file='c'/>");
  const auto names = layer_names(disk, 2, false);
  for (const char* word : {"hda[2]", "hda[00]", "hda[]", "hda[-1]", "hda[1", "ide0-0-0", "]", ""})
    CHECK_FALSE(find_layer(names, word));
  CHECK(find_layer(names, "hda[2]").error().message ==
        "there is no layer 'hda[2]'; the disk has 'hda[0]' to 'hda[1]', node 'ide0-0-0[1]', node "
        "'ide0-0-0[0]'");
}

TEST_CASE("layer_names: an index of the XML that is no position is in the error") {
  const auto names = layer_names(disk_of("<source file='d' index='3'/>"), 1, false);
  CHECK(find_layer(names, "hda[3]").error().message.ends_with("index 3 for 'hda[0]'"));
}

TEST_CASE("layer_names: a node that is given twice is refused") {
  const DomainDisk disk = disk_of(
      "<driver node='[4]'/><source file='d'/>"
      "<backingStore node='4'><source file='c'/></backingStore>");
  CHECK_FALSE(find_layer(layer_names(disk, 2, false), "ide0-0-0[4]"));
  CHECK(find_layer(layer_names(disk, 2, true), "ide0-0-0[0]").value() == 1);
}
