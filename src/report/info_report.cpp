// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <ctime>

#include <coldchain/base/text.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/info_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using analysis::ImageInfo;

constexpr std::uint64_t nanoseconds_per_second = 1'000'000'000;

std::string_view yes(bool flag) {
  return flag ? "true" : "false";
}

std::string_view compression_name(const qcow2::Header& header) {
  return header.compression_type() == static_cast<std::uint8_t>(qcow2::CompressionType::zstd)
             ? "zstd"
             : "zlib";
}

std::vector<std::string_view> flag_names(const qcow2::Bitmap& bitmap) {
  std::vector<std::string_view> names;
  if ((bitmap.flags & qcow2::bitmap_flags::in_use) != 0)
    names.emplace_back("in-use");
  if ((bitmap.flags & qcow2::bitmap_flags::automatic) != 0)
    names.emplace_back("auto");
  return names;
}

// --- text ------------------------------------------------------------------------------------

std::string local_date(std::uint32_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm local = {};
  localtime_r(&time, &local);
  std::array<char, 32> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return {text.data(), length};
}

// As printf's "%-*s" of QEMU's buffers: cut to `most` bytes, padded to `width` bytes.
std::string byte_column(const std::string& name, std::size_t most, std::size_t width) {
  std::string text = to_terminal(std::string_view(name).substr(0, most));
  text.resize(std::max(text.size(), width), ' ');
  return text;
}

std::string snapshots_text(const std::vector<qcow2::Snapshot>& snapshots) {
  std::string out = "Snapshot list:\n";
  out += fmt::format("{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n", "ID", "TAG", "VM SIZE", "DATE",
                     "VM CLOCK", "ICOUNT");
  for (const qcow2::Snapshot& snapshot : snapshots) {
    const std::uint64_t clock = snapshot.vm_clock_nsec / 1'000'000;
    const std::string vm_clock = fmt::format("{:02}:{:02}:{:02}.{:03}", clock / 3'600'000,
                                             clock / 60'000 % 60, clock / 1000 % 60, clock % 1000);
    // qemu-img info prints 0 for every icount; its JSON has the value.
    out += fmt::format("{} {} {:>8}{:>20}{:>13}{:>11}\n", byte_column(snapshot.id, 127, 9),
                       byte_column(snapshot.name, 255, 16), human_size(snapshot.vm_state_size()),
                       local_date(snapshot.date_sec), vm_clock, 0);
  }
  return out;
}

std::string bitmaps_text(const std::vector<qcow2::Bitmap>& bitmaps) {
  std::string out = "    bitmaps:\n";
  for (std::size_t i = 0; i < bitmaps.size(); ++i) {
    out += fmt::format("        [{}]:\n            flags:\n", i);
    const auto flags = flag_names(bitmaps[i]);
    for (std::size_t flag = 0; flag < flags.size(); ++flag)
      out += fmt::format("                [{}]: {}\n", flag, flags[flag]);
    out += fmt::format("            name: {}\n            granularity: {}\n",
                       to_terminal(bitmaps[i].name), bitmaps[i].granularity());
  }
  return out;
}

std::string encryption_text(const ImageInfo& info) {
  std::string out = "    encrypt:\n";
  if (!info.luks)
    return out +
           fmt::format("        format: {}\n", info.header->crypt_method == 1 ? "aes" : "luks");
  const qcow2::LuksInfo& luks = *info.luks;
  out += fmt::format(
      "        ivgen alg: {}\n        hash alg: {}\n        cipher alg: {}\n        uuid: {}\n",
      to_terminal(luks.ivgen_alg), to_terminal(luks.hash_alg), to_terminal(luks.cipher_alg),
      to_terminal(luks.uuid));
  if (!luks.ivgen_hash_alg.empty())
    out += fmt::format("        ivgen hash alg: {}\n", to_terminal(luks.ivgen_hash_alg));
  out += fmt::format("        format: luks\n        cipher mode: {}\n        slots:\n",
                     to_terminal(luks.cipher_mode));
  for (std::size_t i = 0; i < luks.slots.size(); ++i) {
    const qcow2::LuksKeySlot& slot = luks.slots[i];
    out += fmt::format("            [{}]:\n                active: {}\n", i, yes(slot.active));
    if (slot.active)
      out += fmt::format("                iters: {}\n", slot.iterations);
    out += fmt::format("                key offset: {}\n", slot.key_offset);
    if (slot.active)
      out += fmt::format("                stripes: {}\n", slot.stripes);
  }
  return out + fmt::format("        payload offset: {}\n        master key iters: {}\n",
                           luks.payload_offset, luks.master_key_iterations);
}

std::string format_specific_text(const ImageInfo& info) {
  const qcow2::Header& header = *info.header;
  const bool version3 = header.version >= 3;
  std::string out = "Format specific information:\n";
  out += fmt::format("    compat: {}\n    compression type: {}\n", version3 ? "1.1" : "0.10",
                     compression_name(header));
  if (version3)
    out += fmt::format("    lazy refcounts: {}\n", yes(header.has_lazy_refcounts()));
  if (!info.bitmaps.empty())
    out += bitmaps_text(info.bitmaps);
  out += fmt::format("    refcount bits: {}\n", header.refcount_bits());
  if (const auto name = header.data_file_name(); name && header.has_data_file())
    out += fmt::format("    data file: {}\n", to_terminal(*name));
  if (header.crypt_method != 0)
    out += encryption_text(info);
  if (header.has_data_file())
    out += fmt::format("    data file raw: {}\n", yes(header.data_file_is_raw()));
  if (version3)
    out += fmt::format("    corrupt: {}\n    extended l2: {}\n",
                       yes(header.has_incompatible(qcow2::incompatible::corrupt)),
                       yes(header.has_extended_l2()));
  return out;
}

std::string info_text(const ImageInfo& info) {
  std::string out =
      fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n",
                  to_terminal(info.filename), info.format, human_size(info.virtual_size),
                  info.virtual_size, human_size(info.actual_size));
  if (!info.header)
    return out;
  const qcow2::Header& header = *info.header;
  if (header.crypt_method != 0)
    out += "encrypted: yes\n";
  out += fmt::format("cluster_size: {}\n", header.cluster_size());
  if (header.has_incompatible(qcow2::incompatible::dirty))
    out += "cleanly shut down: no\n";
  if (info.backing_filename) {
    out += fmt::format("backing file: {}", to_terminal(*info.backing_filename));
    if (*info.backing_filename != *info.full_backing_filename)
      out += fmt::format(" (actual path: {})", to_terminal(*info.full_backing_filename));
    out += "\n";
    if (const auto format = header.backing_format(); format && !format->empty())
      out += fmt::format("backing file format: {}\n", to_terminal(*format));
  }
  if (!info.snapshots.empty())
    out += snapshots_text(info.snapshots);
  if (header.unknown_incompatible() != 0)
    out += fmt::format(
        "unknown incompatible features: {}\n",
        to_terminal(fmt::format("{}", fmt::join(header.unknown_incompatible_names(), ", "))));
  return out + format_specific_text(info);
}

// --- JSON: the order of the keys is that of QEMU's dictionaries --------------------------------

void write_snapshots(JsonWriter& json, const std::vector<qcow2::Snapshot>& snapshots) {
  json.key("snapshots").begin_array();
  for (const qcow2::Snapshot& snapshot : snapshots) {
    json.begin_object();
    if (const auto icount = snapshot.icount())
      json.member("icount", *icount);
    json.member("vm-clock-nsec", snapshot.vm_clock_nsec % nanoseconds_per_second)
        .member("name", snapshot.name)
        .member("date-sec", snapshot.date_sec)
        .member("date-nsec", snapshot.date_nsec)
        .member("vm-clock-sec", snapshot.vm_clock_nsec / nanoseconds_per_second)
        .member("id", snapshot.id)
        .member("vm-state-size", snapshot.vm_state_size())
        .end_object();
  }
  json.end_array();
}

void write_bitmaps(JsonWriter& json, const std::vector<qcow2::Bitmap>& bitmaps) {
  json.key("bitmaps").begin_array();
  for (const qcow2::Bitmap& bitmap : bitmaps) {
    json.begin_object().key("flags").begin_array();
    for (const std::string_view flag : flag_names(bitmap))
      json.value(flag);
    json.end_array()
        .member("name", bitmap.name)
        .member("granularity", bitmap.granularity())
        .end_object();
  }
  json.end_array();
}

void write_encryption(JsonWriter& json, const ImageInfo& info) {
  json.key("encrypt").begin_object();
  if (!info.luks) {
    json.member("format", info.header->crypt_method == 1 ? "aes" : "luks").end_object();
    return;
  }
  const qcow2::LuksInfo& luks = *info.luks;
  json.member("ivgen-alg", luks.ivgen_alg)
      .member("hash-alg", luks.hash_alg)
      .member("cipher-alg", luks.cipher_alg)
      .member("uuid", luks.uuid);
  if (!luks.ivgen_hash_alg.empty())
    json.member("ivgen-hash-alg", luks.ivgen_hash_alg);
  json.member("format", "luks").member("cipher-mode", luks.cipher_mode);
  json.key("slots").begin_array();
  for (const qcow2::LuksKeySlot& slot : luks.slots) {
    json.begin_object().member("active", slot.active);
    if (slot.active)
      json.member("iters", slot.iterations);
    json.member("key-offset", slot.key_offset);
    if (slot.active)
      json.member("stripes", slot.stripes);
    json.end_object();
  }
  json.end_array()
      .member("payload-offset", luks.payload_offset)
      .member("master-key-iters", luks.master_key_iterations)
      .end_object();
}

void write_format_specific(JsonWriter& json, const ImageInfo& info) {
  const qcow2::Header& header = *info.header;
  const bool version3 = header.version >= 3;
  json.key("format-specific").begin_object().member("type", "qcow2");
  json.key("data").begin_object();
  json.member("compat", version3 ? "1.1" : "0.10")
      .member("compression-type", compression_name(header));
  if (version3)
    json.member("lazy-refcounts", header.has_lazy_refcounts());
  if (!info.bitmaps.empty())
    write_bitmaps(json, info.bitmaps);
  json.member("refcount-bits", header.refcount_bits());
  if (const auto name = header.data_file_name(); name && header.has_data_file())
    json.member("data-file", *name);
  if (header.crypt_method != 0)
    write_encryption(json, info);
  if (header.has_data_file())
    json.member("data-file-raw", header.data_file_is_raw());
  if (version3)
    json.member("corrupt", header.has_incompatible(qcow2::incompatible::corrupt))
        .member("extended-l2", header.has_extended_l2());
  json.end_object().end_object();
}

std::string_view extension_name(std::uint32_t type) {
  switch (type) {
    case qcow2::extension::backing_file_format:
      return "backing file format name";
    case qcow2::extension::feature_name_table:
      return "feature name table";
    case qcow2::extension::bitmaps:
      return "bitmaps";
    case qcow2::extension::encryption_header:
      return "full disk encryption header pointer";
    case qcow2::extension::external_data_file_name:
      return "external data file name";
    default:
      return "unknown";
  }
}

void write_header(JsonWriter& json, const qcow2::Header& header) {
  json.key("header")
      .begin_object()
      .member("version", header.version)
      .member("size", header.size)
      .member("l1-size", header.l1_size)
      .member("l1-table-offset", header.l1_table_offset)
      .member("refcount-table-offset", header.refcount_table_offset)
      .member("refcount-table-clusters", header.refcount_table_clusters)
      .member("nb-snapshots", header.nb_snapshots)
      .member("snapshots-offset", header.snapshots_offset)
      .member("incompatible-features", header.incompatible_features)
      .member("compatible-features", header.compatible_features)
      .member("autoclear-features", header.autoclear_features)
      .member("header-length", header.header_length);
  json.key("extensions").begin_array();
  for (const qcow2::Extension& extension : header.extensions)
    json.begin_object()
        .member("type", extension.type)
        .member("name", extension_name(extension.type))
        .member("length", extension.data.size())
        .end_object();
  json.end_array().end_object();
}

void write_info(JsonWriter& json, const ImageInfo& info) {
  json.begin_object();
  const auto format = info.header ? info.header->backing_format() : std::nullopt;
  if (info.backing_filename && format && !format->empty())
    json.member("backing-filename-format", *format);
  if (!info.snapshots.empty())
    write_snapshots(json, info.snapshots);
  json.member("virtual-size", info.virtual_size).member("filename", info.filename);
  if (info.header)
    json.member("cluster-size", info.header->cluster_size());
  json.member("format", info.format).member("actual-size", info.actual_size);
  if (info.header) {
    write_format_specific(json, info);
    if (info.backing_filename)
      json.member("full-backing-filename", *info.full_backing_filename)
          .member("backing-filename", *info.backing_filename);
    if (info.header->crypt_method != 0)
      json.member("encrypted", true);
  }
  json.member("dirty-flag",
              info.header && info.header->has_incompatible(qcow2::incompatible::dirty));
  json.key("coldchain").begin_object();
  if (!is_valid_utf8(info.filename))
    json.member("filename-hex", to_hex(info.filename));
  if (info.backing_filename && !is_valid_utf8(*info.backing_filename))
    json.member("backing-filename-hex", to_hex(*info.backing_filename));
  if (info.header) {
    write_header(json, *info.header);
    json.key("unknown-incompatible-features").begin_array();
    for (const std::string& name : info.header->unknown_incompatible_names())
      json.value(name);
    json.end_array();
  }
  write_findings(json, info.findings);
  json.end_object().end_object();
}

}  // namespace

Result<void> write_info_text(const std::vector<ImageInfo>& images, const Sink& sink) {
  std::string out;
  for (const ImageInfo& info : images) {
    if (!out.empty())
      out += "\n";
    out += info_text(info);
  }
  return sink(out);
}

Result<void> write_info_json(const std::vector<ImageInfo>& images, bool as_array,
                             const Sink& sink) {
  JsonWriter json;
  if (as_array)
    json.begin_array();
  for (const ImageInfo& info : images)
    write_info(json, info);
  if (as_array)
    json.end_array();
  return sink(json.take() + "\n");
}

}  // namespace coldchain::report
