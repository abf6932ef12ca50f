// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <coldchain/graph/probe.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::graph;
using namespace std::string_view_literals;

namespace {

std::string_view probe(std::string_view start, std::string_view name = "x") {
  return probe_format(text_bytes(start), name);
}

}  // namespace

TEST_CASE("probe: knows formats by their first bytes and takes the rest for raw") {
  CHECK(probe_format(testing::ImageBuilder{testing::ImageOptions{}}.build().pieces.at(0), "x") ==
        "qcow2");
  CHECK(probe("QFI\xfb\0\0\0\1"sv) == "qcow");
  CHECK(probe("KDMV") == "vmdk");
  CHECK(probe("conectix") == "vpc");
  CHECK(probe("LUKS\xba\xbe\0\1"sv) == "luks");
  CHECK(probe("LUKS\xba\xbe\0\2"sv) == "raw");
  CHECK(probe("QFI\xfb") == "raw");
  CHECK(probe("") == "raw");
}

TEST_CASE("probe: a VMDK descriptor may begin with comments and lines of spaces") {
  CHECK(probe("# Disk DescriptorFile\nversion=1\n") == "vmdk");
  CHECK(probe("#\n   \r\n#\r\nversion=3\r\n") == "vmdk");
  CHECK(probe("# Disk DescriptorFile\n\nversion=1\n") == "raw");
  CHECK(probe("version=4\n") == "raw");
  CHECK(probe("version=1") == "raw");
  CHECK(probe("version=") == "raw");
  CHECK(probe("#") == "raw");
}

TEST_CASE("probe: a version that QEMU does not know is not the format") {
  CHECK(probe("WithoutFreeSpace\2\0\0\0"sv) == "parallels");
  CHECK(probe("WithoutFreeSpace\3\0\0\0"sv) == "raw");
  CHECK(probe("QFI\xfb\0\0\0\0"sv) == "raw");
}

TEST_CASE("probe: of two formats that match, the one that QEMU prefers") {
  std::string bytes("QFI\xfb\0\0\0\3"sv);
  bytes.resize(64);
  bytes += "\x7f\x10\xda\xbe";
  CHECK(probe(bytes) == "vdi");
  CHECK(probe(bytes.replace(0, 4, "QED\0"sv)) == "qed");
}

TEST_CASE("probe: a name ending in .dmg decides where no first byte does") {
  CHECK(probe("x", "disk.dmg") == "dmg");
  CHECK(probe("KDMV", "disk.dmg") == "vmdk");
  CHECK(probe("x", "disk.DMG") == "raw");
  CHECK(probe("x", ".dmg") == "raw");
  CHECK(probe("", "disk.dmg") == "raw");
}

TEST_CASE("probe: what lies behind the first 512 bytes changes nothing") {
  const std::string comment(501, '#');
  CHECK(probe(comment + "\nversion=1\n") == "vmdk");
  CHECK(probe("#" + comment + "\nversion=1\n") == "raw");
}

TEST_CASE("is_read_format: qcow2 and raw, the latter also by its protocol's name") {
  CHECK(is_read_format("qcow2"));
  CHECK(is_read_format("host_device"));
  CHECK(is_known_format("vmdk"));
  CHECK(is_known_format("cloop"));
  CHECK(is_known_format("nbd"));
  CHECK(is_known_format("snapshot-access"));
  CHECK_FALSE(is_read_format("nbd"));
  CHECK_FALSE(is_read_format("vmdk"));
  CHECK_FALSE(is_known_format("nonsense"));
}
