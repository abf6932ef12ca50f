// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>

#include <coldchain/base/try.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::graph {

namespace {

using namespace std::string_view_literals;

// The bytes that are probed, and the name.
struct Sample {
  std::string_view text;  // probed_bytes long
  std::string_view name;

  [[nodiscard]] bool has(std::string_view bytes, std::size_t offset = 0) const {
    return text.substr(offset).starts_with(bytes);
  }
};

// QEMU block/parallels.c: either magic, and version 2 in little-endian order.
bool is_parallels(const Sample& sample) {
  return (sample.has("WithoutFreeSpace") || sample.has("WithouFreSpacExt")) &&
         sample.has("\2\0\0\0"sv, 16);
}

// QEMU block/bochs.c: three strings, each with its NUL, and version 1 or 2.
bool is_bochs(const Sample& sample) {
  return sample.has("Bochs Virtual HD Image\0"sv) && sample.has("Redolog\0"sv, 32) &&
         sample.has("Growing\0"sv, 48) &&
         (sample.has("\0\0\1\0"sv, 64) || sample.has("\0\0\2\0"sv, 64));
}

// QEMU block/vmdk.c: a descriptor's version line, behind nothing but comments and lines of spaces.
// A line that is quite empty is not among them.
bool is_vmdk_descriptor(std::string_view rest) {
  while (rest.starts_with('#') || rest.starts_with(' ')) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos)
      return false;
    std::string_view line = rest.substr(0, end);
    if (line.ends_with('\r'))
      line.remove_suffix(1);
    if (!line.starts_with('#') && line.find_first_not_of(' ') != std::string_view::npos)
      return false;
    rest.remove_prefix(end + 1);
  }
  constexpr std::string_view key = "version=";
  if (!rest.starts_with(key) || rest.size() == key.size())
    return false;
  const char version = rest[key.size()];
  rest.remove_prefix(key.size() + 1);
  return version >= '1' && version <= '3' && (rest.starts_with("\n") || rest.starts_with("\r\n"));
}

struct Rule {
  std::string_view format;
  bool (*matches)(const Sample& sample);
};

// QEMU takes the format with the best score and, of equals, the driver that it registered last. The
// first rule that matches stands for both: the rules are in that order. dmg and cloop score least.
constexpr std::array rules = {
    Rule{"qed", [](const Sample& s) { return s.has("QED\0"sv); }},
    Rule{"parallels", is_parallels},
    Rule{"vdi", [](const Sample& s) { return s.has("\x7f\x10\xda\xbe"sv, 64); }},
    Rule{"qcow2", [](const Sample& s) { return qcow2::looks_like_qcow2(text_bytes(s.text)); }},
    Rule{"qcow", [](const Sample& s) { return s.has("QFI\xfb\0\0\0\1"sv); }},
    Rule{"luks", [](const Sample& s) { return s.has("LUKS\xba\xbe\0\1"sv); }},
    Rule{"vhdx", [](const Sample& s) { return s.has("vhdxfile"sv); }},
    Rule{"vpc", [](const Sample& s) { return s.has("conectix"sv); }},
    Rule{"bochs", is_bochs},
    Rule{"vmdk",
         [](const Sample& s) {
           return s.has("KDMV"sv) || s.has("COWD"sv) || is_vmdk_descriptor(s.text);
         }},
    Rule{"dmg", [](const Sample& s) { return s.name.size() > 4 && s.name.ends_with(".dmg"); }},
    Rule{"cloop",
         [](const Sample& s) {
           return s.has(
               "#!/bin/sh\n#V2.0 Format\n"
               "modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"sv);
         }},
};

}  // namespace

std::string_view probe_format(ByteView start, std::string_view name) {
  if (start.empty())
    return "raw";  // QEMU block.c, find_image_format(): an empty file is not probed
  std::string text = to_string(start.first(std::min(start.size(), probed_bytes)));
  text.resize(probed_bytes);
  const Sample sample{text, name};
  const auto* rule = std::find_if(rules.begin(), rules.end(),
                                  [&](const Rule& candidate) { return candidate.matches(sample); });
  return rule == rules.end() ? "raw" : rule->format;
}

Result<std::string_view> probe_format(const io::File& file, std::string_view name) {
  std::array<std::byte, probed_bytes> start{};
  const std::size_t count = TRY(file.read_at({0}, start));
  return probe_format(ByteView(start).first(count), name);
}

bool is_known_format(std::string_view format) {
  // The drivers of QEMU 7.2 that no first byte tells, as 'qemu-img --help' lists them.
  constexpr std::array others = {"blkdebug"sv,
                                 "blklogwrites"sv,
                                 "blkverify"sv,
                                 "compress"sv,
                                 "copy-before-write"sv,
                                 "copy-on-read"sv,
                                 "file"sv,
                                 "ftp"sv,
                                 "ftps"sv,
                                 "gluster"sv,
                                 "host_cdrom"sv,
                                 "host_device"sv,
                                 "http"sv,
                                 "https"sv,
                                 "iscsi"sv,
                                 "iser"sv,
                                 "nbd"sv,
                                 "nfs"sv,
                                 "null-aio"sv,
                                 "null-co"sv,
                                 "nvme"sv,
                                 "preallocate"sv,
                                 "quorum"sv,
                                 "raw"sv,
                                 "rbd"sv,
                                 "replication"sv,
                                 "ssh"sv,
                                 "snapshot-access"sv,
                                 "throttle"sv,
                                 "vvfat"sv};
  return std::find(others.begin(), others.end(), format) != others.end() ||
         std::any_of(rules.begin(), rules.end(),
                     [format](const Rule& rule) { return rule.format == format; });
}

bool is_read_format(std::string_view format) {
  // A protocol driver recorded as the format means its bytes as they are.
  return format == "qcow2" || format == "raw" || format == "file" || format == "host_device";
}

}  // namespace coldchain::graph
