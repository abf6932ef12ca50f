// SPDX-License-Identifier: MIT
#include "header_checks.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

constexpr std::size_t version2_length = sizeof(wire::Header);
constexpr std::size_t version3_length = sizeof(wire::Header) + sizeof(wire::HeaderVersion3);
static_assert(version3_length == 104);

// Names are not terminated in the file, but QEMU takes them as C strings.
std::string up_to_nul(ByteView view) {
  const std::string text = to_string(view);
  return text.substr(0, text.find('\0'));
}

Bytes copy(ByteView view) {
  return {view.begin(), view.end()};
}

Result<void> decode_fixed_fields(ByteView bytes, Header& header) {
  const auto fixed = load<wire::Header>(bytes, 0);
  if (!fixed || fixed->magic.get() != magic)
    return fail(ErrorCode::not_this_format, "Image is not in qcow2 format");
  header.version = fixed->version.get();
  header.backing_file_offset = fixed->backing_file_offset.get();
  header.backing_file_size = fixed->backing_file_size.get();
  header.cluster_bits = fixed->cluster_bits.get();
  header.size = fixed->size.get();
  header.crypt_method = fixed->crypt_method.get();
  header.l1_size = fixed->l1_size.get();
  header.l1_table_offset = fixed->l1_table_offset.get();
  header.refcount_table_offset = fixed->refcount_table_offset.get();
  header.refcount_table_clusters = fixed->refcount_table_clusters.get();
  header.nb_snapshots = fixed->nb_snapshots.get();
  header.snapshots_offset = fixed->snapshots_offset.get();

  if (header.version < 2 || header.version > 3)
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported qcow2 version {}", header.version));
  if (header.cluster_bits < limits::min_cluster_bits ||
      header.cluster_bits > limits::max_cluster_bits)
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported cluster size: 2^{}", header.cluster_bits));
  return {};
}

Result<void> decode_version3_fields(ByteView bytes, Header& header) {
  const auto fields = load<wire::HeaderVersion3>(bytes, version2_length);
  if (!fields)
    return fail(ErrorCode::corrupt,
                fmt::format("qcow2 header too short: the file ends at {}", bytes.size()));
  header.incompatible_features = fields->incompatible_features.get();
  header.compatible_features = fields->compatible_features.get();
  header.autoclear_features = fields->autoclear_features.get();
  header.refcount_order = fields->refcount_order.get();
  header.header_length = fields->header_length.get();
  if (header.header_length < version3_length)
    return fail(ErrorCode::corrupt,
                fmt::format("qcow2 header too short: header_length at 0x64 is {}, at least "
                            "{} are needed",
                            header.header_length, version3_length));
  if (header.header_length > header.cluster_size())
    return fail(ErrorCode::corrupt,
                fmt::format("qcow2 header exceeds cluster size: header_length at 0x64 is {}",
                            header.header_length));
  const std::size_t end = std::min<std::size_t>(header.header_length, bytes.size());
  header.additional_fields = copy(bytes.subspan(version3_length, end - version3_length));
  return {};
}

// qcow2.rst, "Header extensions". They end at the end mark, at the backing file name, or with the
// cluster.
Result<void> decode_extensions(ByteView bytes, Header& header) {
  std::size_t offset = header.header_length;
  const std::size_t area_end = header.backing_file_offset != 0
                                   ? static_cast<std::size_t>(header.backing_file_offset)
                                   : header.cluster_size();
  while (offset < area_end) {
    const auto head = load<wire::Extension>(bytes, offset);
    if (!head)
      return {};  // the file ends where nothing but zeros would follow
    const std::uint32_t type = head->type.get();
    const std::uint32_t length = head->length.get();
    offset += sizeof(wire::Extension);
    if (offset > area_end || length > area_end - offset)
      return fail(ErrorCode::corrupt,
                  fmt::format("Header extension too large: extension {:#010x} at {:#x}: its length "
                              "{} reaches past the end of the header area at {:#x}",
                              type, offset - sizeof(wire::Extension), length, area_end));
    if (type == extension::end) {
      header.has_end_mark = true;
      return {};
    }
    if (length > bytes.size() - std::min(offset, bytes.size()))
      return fail(ErrorCode::corrupt,
                  fmt::format("header extension {:#010x} at {:#x}: its length {} reaches past the "
                              "end of the file ({} bytes)",
                              type, offset - sizeof(wire::Extension), length, bytes.size()));
    if (type == extension::backing_file_format && length >= limits::max_format_name)
      return fail(ErrorCode::corrupt,
                  fmt::format("ERROR: ext_backing_format: len={} too large (>={}): extension at "
                              "{:#x}",
                              length, limits::max_format_name, offset - sizeof(wire::Extension)));
    const std::size_t padded = align_up(length, 8);
    const std::size_t present = std::min(padded, bytes.size() - offset);
    header.extensions.push_back(
        {type, copy(bytes.subspan(offset, length)),
         copy(bytes.subspan(offset + length, std::max<std::size_t>(present, length) - length))});
    offset += padded;
  }
  return {};
}

Result<void> decode_backing_file(ByteView bytes, Header& header) {
  if (header.backing_file_offset == 0)
    return {};
  const std::uint64_t room = header.cluster_size() - header.backing_file_offset;
  if (header.backing_file_size > std::min<std::uint64_t>(limits::max_backing_file_size, room))
    return fail(ErrorCode::corrupt,
                fmt::format("Backing file name too long: backing_file_size at 0x10 is {}",
                            header.backing_file_size));
  const auto offset = static_cast<std::size_t>(header.backing_file_offset);
  if (offset > bytes.size() || header.backing_file_size > bytes.size() - offset)
    return fail(ErrorCode::corrupt,
                fmt::format("backing file name at {:#x} is past the end of the file ({} bytes)",
                            offset, bytes.size()));
  header.backing_file_bytes = to_string(bytes.subspan(offset, header.backing_file_size));
  return {};
}

// What lies behind the fixed fields.
Result<void> decode_rest(ByteView bytes, Header& header, HeaderRules rules) {
  TRY(check_refcount_order(header));
  if (header.header_length > bytes.size())
    return fail(ErrorCode::corrupt, fmt::format("header_length is {}, but the file ends at {}",
                                                header.header_length, bytes.size()));
  const bool is_judged = rules != HeaderRules::decodable && header.unknown_incompatible() == 0;
  const Result<void> decoded = decode_extensions(bytes, header);
  // QEMU judges each extension before it decodes the next one.
  if (is_judged && rules == HeaderRules::for_use)
    TRY(check_extensions(header));
  TRY(decoded);
  if (is_judged)
    TRY(check_data_file_bit(header));
  TRY(decode_backing_file(bytes, header));
  return is_judged ? check_disk_size(header) : Result<void>{};
}

}  // namespace

std::uint8_t Header::compression_type() const {
  return additional_fields.empty() ? 0 : std::to_integer<std::uint8_t>(additional_fields.front());
}

const Extension* Header::find_extension(std::uint32_t type) const {
  const auto found =
      std::find_if(extensions.rbegin(), extensions.rend(),
                   [type](const Extension& candidate) { return candidate.type == type; });
  return found == extensions.rend() ? nullptr : &*found;
}

std::optional<std::string> Header::backing_format() const {
  const Extension* found = find_extension(extension::backing_file_format);
  if (found == nullptr)
    return std::nullopt;
  return up_to_nul(found->data);
}

std::optional<std::string> Header::data_file_name() const {
  const Extension* found = find_extension(extension::external_data_file_name);
  if (found == nullptr)
    return std::nullopt;
  return up_to_nul(found->data);
}

std::optional<std::string> Header::backing_file() const {
  if (!backing_file_bytes)
    return std::nullopt;
  return up_to_nul(text_bytes(*backing_file_bytes));
}

std::vector<std::string> Header::unknown_incompatible_names() const {
  const Extension* table = find_extension(extension::feature_name_table);
  std::vector<std::string> names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((unknown_incompatible() >> bit & 1) == 0)
      continue;
    std::string name = fmt::format("bit {}", bit);
    for (std::size_t at = 0; table != nullptr; at += sizeof(wire::FeatureName)) {
      const auto entry = load<wire::FeatureName>(table->data, at);
      if (!entry)
        break;
      if (entry->type != std::byte{0} || entry->bit != std::byte(bit))
        continue;
      name = up_to_nul(ByteView(entry->name));
    }
    names.push_back(std::move(name));
  }
  return names;
}

bool looks_like_qcow2(ByteView start) {
  const auto found_magic = load<be32>(start, 0);
  const auto version = load<be32>(start, 4);
  return found_magic && version && found_magic->get() == magic && version->get() >= 2;
}

Result<Header> decode_header(ByteView bytes) {
  return decode_header(bytes, HeaderRules::decodable);
}

Result<Header> decode_header(ByteView bytes, HeaderRules rules) {
  Header header;
  TRY(decode_fixed_fields(bytes, header));
  bytes = bytes.first(std::min<std::size_t>(bytes.size(), header.cluster_size()));
  if (header.version >= 3)
    TRY(decode_version3_fields(bytes, header));
  else
    header.header_length = version2_length;
  if (header.backing_file_offset > header.cluster_size())
    return fail(ErrorCode::corrupt,
                fmt::format("Invalid backing file offset: backing_file_offset at 0x8 is {:#x}",
                            header.backing_file_offset));
  if (rules != HeaderRules::decodable)
    TRY(check_fields(header, rules));
  Result<void> rest = decode_rest(bytes, header, rules);
  // QEMU reports nothing behind unknown features, and looks at their names only.
  if (!rest && header.unknown_incompatible() != 0 && rules != HeaderRules::decodable)
    return fail(with_context(rest.error(), unsupported_features(header)));
  TRY(std::move(rest));
  return header;
}

Result<Header> read_header(const io::File& file) {
  return read_header(file, HeaderRules::decodable);
}

Result<Header> read_header(const io::File& file, HeaderRules rules) {
  // Nearly every header, with its extensions and its names, fits into a page; the rest of the
  // cluster is read only where the page does not settle it.
  Bytes bytes(4096);
  bytes.resize(TRY(file.read_at(HostOffset{0}, bytes)));
  if (bytes.size() == 4096) {
    Header fixed;
    TRY(decode_fixed_fields(bytes, fixed));
    Result<Header> header = decode_header(bytes, rules);
    const bool settled = header && (header->has_end_mark || header->backing_file_bytes.has_value());
    if (settled || fixed.cluster_size() <= bytes.size())
      return header;
    bytes.resize(fixed.cluster_size());
    bytes.resize(TRY(file.read_at(HostOffset{0}, bytes)));
  }
  return decode_header(bytes, rules);
}

Bytes encode_header(const Header& header) {
  wire::Header fixed;
  fixed.magic = magic;
  fixed.version = header.version;
  fixed.backing_file_offset = header.backing_file_offset;
  fixed.backing_file_size = header.backing_file_size;
  fixed.cluster_bits = header.cluster_bits;
  fixed.size = header.size;
  fixed.crypt_method = header.crypt_method;
  fixed.l1_size = header.l1_size;
  fixed.l1_table_offset = header.l1_table_offset;
  fixed.refcount_table_offset = header.refcount_table_offset;
  fixed.refcount_table_clusters = header.refcount_table_clusters;
  fixed.nb_snapshots = header.nb_snapshots;
  fixed.snapshots_offset = header.snapshots_offset;
  Bytes bytes;
  bytes.reserve(4096);
  append(bytes, fixed);
  if (header.version >= 3) {
    wire::HeaderVersion3 fields;
    fields.incompatible_features = header.incompatible_features;
    fields.compatible_features = header.compatible_features;
    fields.autoclear_features = header.autoclear_features;
    fields.refcount_order = header.refcount_order;
    fields.header_length = header.header_length;
    append(bytes, fields);
    bytes.insert(bytes.end(), header.additional_fields.begin(), header.additional_fields.end());
  }
  for (const Extension& entry : header.extensions) {
    append(bytes, wire::Extension{entry.type, static_cast<std::uint32_t>(entry.data.size())});
    bytes.insert(bytes.end(), entry.data.begin(), entry.data.end());
    bytes.insert(bytes.end(), entry.padding.begin(), entry.padding.end());
  }
  if (header.has_end_mark)
    append(bytes, wire::Extension{extension::end, 0U});
  if (header.backing_file_bytes) {
    const ByteView name = text_bytes(*header.backing_file_bytes);
    const auto offset = static_cast<std::size_t>(header.backing_file_offset);
    bytes.resize(std::max(bytes.size(), offset + name.size()));
    std::copy(name.begin(), name.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  return bytes;
}

}  // namespace coldchain::qcow2
