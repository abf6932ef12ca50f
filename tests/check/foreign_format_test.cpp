// SPDX-License-Identifier: MIT
#include <coldchain/check/foreign_format.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace std::string_view_literals;

namespace {

std::string foreign(std::string_view start, std::string_view end = "") {
  return check::foreign_format(text_bytes(start), text_bytes(end)).value_or("");
}

// What an honest disk may begin with: a boot sector, and a sector behind it.
std::string boot_sector() {
  std::string bytes("\xeb\x63\x90");
  bytes.resize(510);
  bytes += "\x55\xaa";
  return bytes;
}

}  // namespace

TEST_CASE(
    "foreign_format: a footer or a trailer at the end is one wherever the last bytes have it") {
  std::string end(1023, '\0');
  CHECK(foreign("", end).empty());
  for (const std::size_t offset : {511U, 512U, 600U}) {
    CHECK(foreign("", std::string(end).replace(offset, 8, "conectix")).starts_with("VHD ("));
    CHECK(foreign("", std::string(end).replace(offset, 4, "koly")).starts_with("DMG ("));
  }
}

TEST_CASE("foreign_format: a magic is enough for others, without the version that QEMU wants") {
  CHECK(foreign("QFI\xfb\0\0\0\0"sv).starts_with("qcow ("));
  CHECK(foreign("QED\1"sv).starts_with("QED ("));
  CHECK(foreign("OOOM\0\0\0\2"sv).starts_with("UML COW ("));
  CHECK(foreign("LUKS\xba\xbe\0\2"sv).starts_with("LUKS ("));
  CHECK(foreign("WithouFreSpacExt\1\0\0\0"sv).starts_with("Parallels ("));
  CHECK(foreign("WithoutFreeSpace").starts_with("Parallels ("));
  CHECK(foreign("Bochs Virtual HD Image").starts_with("Bochs ("));
  CHECK(foreign("#!/bin/sh\n#V3.0 Format\n").starts_with("cloop ("));
  CHECK(foreign("composite_disk\x1d").starts_with("composite disk ("));
  CHECK(foreign("\x3a\xff\x26\xed"sv).starts_with("Android sparse ("));
  CHECK(foreign("BZh91AY&SY").starts_with("bzip2 ("));
  CHECK(foreign("\x1f\x8b\x08"sv).starts_with("gzip ("));
  CHECK(foreign(std::string(257, 'x') + "ustar").starts_with("tar or OVA ("));
}

TEST_CASE("foreign_format: a VMDK descriptor is one however far its version line lies") {
  CHECK(foreign("# Disk DescriptorFile\nencoding=\"UTF-8\"\n").starts_with("VMDK descriptor ("));
  CHECK(foreign(std::string(2000, '#') + "\nversion=1\nCREATETYPE = \"vmfs\"\n")
            .starts_with("VMDK descriptor ("));
  CHECK(foreign("\0createType=\"vmfs\"\n"sv).empty());
}

TEST_CASE(
    "foreign_format: boot sectors, partition tables, file systems and ISO images are no signs") {
  CHECK(foreign("").empty());
  CHECK(foreign(boot_sector()).empty());
  CHECK(foreign(boot_sector() + "EFI PART").empty());
  CHECK(foreign(std::string(512, '\0') + "LABELONELVM2 001").empty());
  CHECK(foreign(std::string(32769, '\0') + "CD001").empty());
  CHECK(foreign(std::string(1024 + 56, '\0') + "\x53\xef").empty());
  CHECK(foreign("XFSB").empty());
  CHECK(foreign("hsqs").empty());
  CHECK(foreign("\xeb\x52\x90NTFS    ").empty());
}
