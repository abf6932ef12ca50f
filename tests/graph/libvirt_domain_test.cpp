// SPDX-License-Identifier: MIT
#include <coldchain/graph/libvirt_domain.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using graph::DomainDisk;
using graph::parse_domain;
using graph::spec_of;

namespace {

std::string domain(const std::string& disks) {
  return "<domain><devices>" + disks + "</devices></domain>";
}

std::string error_of(const std::string& xml) {
  const auto disks = parse_domain(xml);
  REQUIRE(!disks);
  return disks.error().message;
}

}  // namespace

TEST_CASE("parse_domain: reads disks in their order, with targets, aliases and sources") {
  const auto disks = parse_domain(domain(R"(
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a &amp; b'/>
      <target dev='vda'/><alias name='virtio-disk0'/></disk>
    <disk type='block'><source dev='/dev/vg/lv'/><target dev='vdb'/></disk>
    <disk type='volume'><driver type='qcow2'/><source pool='p' volume='v'/><target dev='vdc'/></disk>
    <disk type='network'><source protocol='nbd' name='x'/><target dev='vdd'/></disk>
    <disk type='file' device='cdrom'><target dev='hda'/></disk>)"));
  REQUIRE(disks);
  REQUIRE(disks->size() == 5);
  const DomainDisk& first = (*disks)[0];
  CHECK(first.target == "vda");
  CHECK(first.alias == "virtio-disk0");
  CHECK(first.layers.at(0).path == "/a & b");
  CHECK(first.layers.at(0).format == "qcow2");
  CHECK_FALSE(first.ends_chain);
  CHECK((*disks)[1].layers.at(0).path == "/dev/vg/lv");
  CHECK((*disks)[1].layers.at(0).format == "raw");  // libvirt does not probe
  CHECK(spec_of((*disks)[2], {{"p", "/pool"}})->path == "/pool/v");
  CHECK(spec_of((*disks)[2], {}).error().message ==
        "volume 'v' is in the pool 'p', whose folder is not known");
  CHECK(spec_of((*disks)[3], {}).error().message == "the protocol 'nbd' is not contacted");
  CHECK((*disks)[4].layers.empty());
  CHECK(spec_of((*disks)[4], {}).error().code == ErrorCode::not_found);
}

TEST_CASE("parse_domain: a given chain has its layers, and an empty backing store ends it") {
  const std::string top = "<disk><driver type='qcow2'/><source file='/top'/>";
  const auto ended = parse_domain(top + "<backingStore/></disk>");
  REQUIRE(ended);
  CHECK(ended->at(0).ends_chain);
  CHECK(spec_of(ended->at(0), {})->without_backing);
  const auto chain = parse_domain(
      top +
      "<backingStore type='file'><format type='qcow2'/><source file='/mid'/>"
      "<backingStore type='file'><format type='raw'/><source file='/base'><slices>"
      "<slice type='storage' offset='512' size='1024'/></slices></source><backingStore/>"
      "</backingStore></backingStore></disk>");
  REQUIRE(chain);
  const auto spec = spec_of(chain->at(0), {});
  REQUIRE(spec);
  CHECK(spec->path == "/top");
  REQUIRE(spec->backing);
  CHECK(spec->backing->path == "/mid");
  REQUIRE(spec->backing->backing);
  CHECK(spec->backing->backing->format == "raw");
  CHECK(spec->backing->backing->window.offset == 512);
  CHECK(spec->backing->backing->window.size == 1024);
}

TEST_CASE("parse_domain: what is no definition is refused with the reason") {
  CHECK(error_of("").find("is not XML") == 0);
  CHECK(error_of("<domain>").find("is not XML") == 0);
  CHECK(error_of("<volume/>") == "is not the XML of a domain or a disk");
  CHECK(error_of("<disk><source file='x'><slices><slice type='storage' offset='-1' size='1'/>"
                 "</slices></source></disk>") == "<slice>: 'offset' is not a number of bytes");
  CHECK(parse_domain("<domain/>")->empty());
}

TEST_CASE("parse_domain: entities are not expanded, and size, disks and layers are bounded") {
  const auto entity = parse_domain(
      "<!DOCTYPE d [<!ENTITY e SYSTEM '/etc/passwd'>]>"
      "<disk><source file='&e;'/><target dev='vda'/></disk>");
  REQUIRE(entity);
  CHECK(entity->at(0).layers.at(0).path == "&e;");
  CHECK(error_of(std::string(graph::max_xml_bytes + 1, ' ')) == "is longer than 16 MiB");
  std::string disks;
  for (std::size_t i = 0; i <= graph::max_disks; ++i)
    disks += "<disk/>";
  CHECK(error_of(domain(disks)) == "has more than 1024 disks");
  const auto chain = [](std::size_t layers) {
    std::string text = "<disk><source file='x'/>";
    for (std::size_t i = 1; i < layers; ++i)
      text += "<backingStore><source file='x'/>";
    for (std::size_t i = 1; i < layers; ++i)
      text += "</backingStore>";
    return text + "</disk>";
  };
  CHECK(parse_domain(chain(graph::max_layers))->at(0).layers.size() == graph::max_layers);
  CHECK(error_of(chain(graph::max_layers + 1)) == "disk '' has more than 1024 layers");
  // Deep nesting elsewhere costs no stack.
  std::string deep;
  for (int i = 0; i < 1000000; ++i)
    deep += "<x>";
  CHECK(error_of("<domain>" + deep).find("is not XML") == 0);
}
