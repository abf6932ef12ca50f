// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>

#include <coldchain/base/try.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::graph {

namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view format;
  std::size_t offset;
  std::string_view bytes;
};

constexpr std::array magics = {
    Magic{"qed", 0, "QED\0"sv},
    Magic{"vmdk", 0, "KDMV"sv},
    Magic{"vmdk", 0, "COWD"sv},
    Magic{"vmdk", 0, "# Disk DescriptorFile"sv},
    Magic{"vpc", 0, "conectix"sv},
    Magic{"vhdx", 0, "vhdxfile"sv},
    Magic{"vdi", 64, "\x7f\x10\xda\xbe"sv},
    Magic{"luks", 0, "LUKS\xba\xbe\0\1"sv},
    Magic{"parallels", 0, "WithoutFreeSpace"sv},
    Magic{"parallels", 0, "WithouFreSpacExt"sv},
    Magic{"bochs", 0, "Bochs Virtual HD Image"sv},
    Magic{"qcow", 0, "QFI\xfb\0\0\0\1"sv},
};

}  // namespace

std::string_view probe_format(ByteView start) {
  if (qcow2::looks_like_qcow2(start))
    return "qcow2";
  for (const Magic& magic : magics) {
    const ByteView wanted = text_bytes(magic.bytes);
    if (start.size() >= magic.offset + wanted.size() &&
        std::equal(wanted.begin(), wanted.end(),
                   start.begin() + static_cast<std::ptrdiff_t>(magic.offset)))
      return magic.format;
  }
  return "raw";
}

Result<std::string_view> probe_format(const io::File& file) {
  std::array<std::byte, 512> start{};
  const std::size_t count = TRY(file.read_at({0}, start));
  return probe_format(ByteView(start).first(count));
}

bool is_known_format(std::string_view format) {
  constexpr std::array others = {"host_device"sv, "file"sv,   "cloop"sv, "dmg"sv,
                                 "vvfat"sv,       "quorum"sv, "raw"sv,   "qcow2"sv};
  return std::find(others.begin(), others.end(), format) != others.end() ||
         std::any_of(magics.begin(), magics.end(),
                     [format](const Magic& magic) { return magic.format == format; });
}

bool is_read_format(std::string_view format) {
  // A protocol driver recorded as the format means its bytes as they are.
  return format == "qcow2" || format == "raw" || format == "file" || format == "host_device";
}

}  // namespace coldchain::graph
