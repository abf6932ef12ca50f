// SPDX-License-Identifier: MIT
// Partition tables, file systems and ISO images are no signs: honest disks have them.
#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include <coldchain/check/foreign_format.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using namespace std::string_view_literals;

struct Sign {
  std::string_view bytes;
  std::size_t offset;
  std::string_view format;
  std::string_view consumers;
};

constexpr std::string_view unpackers = "KubeVirt CDI, Incus, 7-Zip";

// Magics without the versions and the further fields that QEMU's probe wants: others ask for less.
constexpr std::array start_signs = {
    // libvirt src/storage_file/storage_file_probe.c: three letters, and for QED any version.
    Sign{"QFI"sv, 0, "qcow", "libvirt, OpenStack"},
    Sign{"QED"sv, 0, "QED", "libvirt"},
    Sign{"OOOM"sv, 0, "UML COW", "libvirt, User-mode Linux"},
    Sign{"WithoutFreeSpace"sv, 0, "Parallels", "Parallels"},
    Sign{"WithouFreSpacExt"sv, 0, "Parallels", "libvirt, Parallels"},
    Sign{"LUKS\xba\xbe"sv, 0, "LUKS", "cryptsetup"},
    Sign{"Bochs Virtual HD Image"sv, 0, "Bochs", "Bochs"},
    Sign{"#!/bin/sh\n#V"sv, 0, "cloop", "cloop"},
    Sign{"composite_disk\x1d"sv, 0, "composite disk", "crosvm"},
    Sign{"\x3a\xff\x26\xed"sv, 0, "Android sparse", "crosvm, simg2img"},
    Sign{"\x1f\x8b\x08"sv, 0, "gzip", unpackers},
    Sign{"\xfd"
         "7zXZ\0"sv,
         0, "xz", unpackers},
    Sign{"\x28\xb5\x2f\xfd"sv, 0, "zstd", unpackers},
    Sign{"1AY&SY"sv, 4, "bzip2", unpackers},
    Sign{"7z\xbc\xaf\x27\x1c"sv, 0, "7z", "7-Zip"},
    Sign{"PK\3\4"sv, 0, "zip", "7-Zip"},
    Sign{"ustar"sv, 257, "tar or OVA", "VMware, VirtualBox, KubeVirt CDI"},
};

// A footer of 512 bytes, or of 511 by old versions of Virtual PC; a trailer that QEMU's dmg driver
// looks for in the last 1,023 bytes.
constexpr std::array end_signs = {
    Sign{"conectix"sv, 0, "VHD", "Hyper-V, Azure, VirtualBox, cloud-hypervisor"},
    Sign{"koly"sv, 0, "DMG", "macOS, VirtualBox, 7-Zip"},
};

std::string describe(const Sign& sign) {
  return fmt::format("{} ({})", sign.format, sign.consumers);
}

// VMware's descriptor is text with keys in any case; its version line may lie behind more comments
// than QEMU's probe reads.
bool is_vmdk_descriptor(std::string_view start) {
  std::string text(start.substr(0, start.find('\0')));
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text.starts_with("# disk descriptor") || text.starts_with("#disk descriptor") ||
         text.find("createtype") != std::string::npos;
}

}  // namespace

std::optional<std::string> foreign_format(ByteView start, ByteView end) {
  const std::string first = to_string(start);
  const std::string last = to_string(end);
  for (const Sign& sign : start_signs) {
    if (first.size() >= sign.offset &&
        std::string_view(first).substr(sign.offset).starts_with(sign.bytes))
      return describe(sign);
  }
  if (is_vmdk_descriptor(first))
    return "VMDK descriptor (VMware, VirtualBox)";
  for (const Sign& sign : end_signs) {
    if (last.find(sign.bytes) != std::string::npos)
      return describe(sign);
  }
  return std::nullopt;
}

}  // namespace coldchain::check
