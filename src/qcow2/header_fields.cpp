// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/header_fields.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

constexpr std::size_t most_content = 1024;
constexpr std::uint64_t version3_begin = sizeof(wire::Header);
constexpr std::uint64_t version3_end = version3_begin + sizeof(wire::HeaderVersion3);

std::string_view name_of(std::uint32_t type) {
  switch (type) {
    case extension::end:
      return "End of the header extension area";
    case extension::backing_file_format:
      return "Backing file format name string";
    case extension::feature_name_table:
      return "Feature name table";
    case extension::bitmaps:
      return "Bitmaps extension";
    case extension::encryption_header:
      return "Full disk encryption header pointer";
    case extension::external_data_file_name:
      return "External data file name string";
    default:
      return "unknown header extension";
  }
}

class FieldReader {
 public:
  FieldReader(ByteView bytes, std::uint64_t file_size) : bytes_(bytes), file_size_(file_size) {}

  std::vector<HeaderField> read() {
    read_version2();
    if (header_.version >= 3)
      read_version3();
    // Before the end of the fields there are none, whatever the field says.
    const std::size_t least = header_.version >= 3 ? version3_end : version3_begin;
    if (header_.header_length >= least && bytes_.size() >= header_.header_length)
      read_extensions();
    read_backing_file();
    return std::move(fields_);
  }

 private:
  // The next number; 0 past the end of the file, which is a problem of its own.
  std::uint64_t number(const char* name, std::uint64_t length) {
    HeaderField field{.name = name, .offset = at_, .length = length};
    if (at_ + length > bytes_.size())
      field.problem = fmt::format("the file ends at {}, before the field", bytes_.size());
    else
      for (std::uint64_t i = 0; i < length; ++i)
        field.value = field.value << 8 | std::to_integer<std::uint64_t>(bytes_[at_ + i]);
    at_ += length;
    fields_.push_back(std::move(field));
    return fields_.back().value;
  }
  std::uint32_t number4(const char* name) { return static_cast<std::uint32_t>(number(name, 4)); }

  // Of the field that was read last. The first problem counts.
  void require(bool is_valid, std::string problem) {
    if (!is_valid && fields_.back().problem.empty())
      fields_.back().problem = std::move(problem);
  }

  [[nodiscard]] bool has_cluster_size() const {
    return header_.cluster_bits >= limits::min_cluster_bits &&
           header_.cluster_bits <= limits::max_cluster_bits;
  }

  // A table of `bytes` at the offset that was read last.
  void require_table(std::uint64_t offset, std::uint64_t bytes) {
    if (has_cluster_size())
      require(is_aligned(offset, header_.cluster_size()), "it is not aligned to a cluster");
    const auto end = checked_add(offset, bytes);
    require(end && *end <= align_up(file_size_, 512),
            fmt::format("the table of {} bytes reaches past the end of the file ({} bytes)", bytes,
                        file_size_));
  }

  void read_version2() {
    require_magic();
    header_.version = number4("version");
    require(header_.version == 2 || header_.version == 3, "only 2 and 3 are defined");
    header_.backing_file_offset = number("backing_file_offset", 8);
    const std::size_t backing_offset = fields_.size() - 1;
    header_.backing_file_size = number4("backing_file_size");
    require(header_.backing_file_offset == 0 ||
                header_.backing_file_size <= limits::max_backing_file_size,
            fmt::format("at most {} are allowed", limits::max_backing_file_size));
    header_.cluster_bits = number4("cluster_bits");
    require(has_cluster_size(), fmt::format("{} to {} are allowed", limits::min_cluster_bits,
                                            limits::max_cluster_bits));
    if (has_cluster_size() && header_.backing_file_offset > header_.cluster_size())
      fields_[backing_offset].problem = "it is not in the first cluster";
    header_.size = number("size", 8);
    require(header_.size <= limits::max_file_bytes,
            fmt::format("at most {} are allowed", limits::max_file_bytes));
    header_.crypt_method = number4("crypt_method");
    require(header_.crypt_method <= 2, "only 0 (none), 1 (AES) and 2 (LUKS) are defined");
    header_.l1_size = number4("l1_size");
    const std::size_t l1_size = fields_.size() - 1;
    const std::uint64_t l1_bytes = header_.l1_size * sizeof(be64);
    require(l1_bytes <= limits::max_l1_bytes,
            fmt::format("at most {} are allowed", limits::max_l1_bytes / sizeof(be64)));
    header_.l1_table_offset = number("l1_table_offset", 8);
    require_table(header_.l1_table_offset, l1_bytes);
    l1_size_field_ = l1_size;
    header_.refcount_table_offset = number("refcount_table_offset", 8);
    const std::size_t table = fields_.size() - 1;
    header_.refcount_table_clusters = number4("refcount_table_clusters");
    check_refcount_table(table);
    header_.nb_snapshots = number4("nb_snapshots");
    require(header_.nb_snapshots <= limits::max_snapshots,
            fmt::format("at most {} are allowed", limits::max_snapshots));
    header_.snapshots_offset = number("snapshots_offset", 8);
    if (header_.nb_snapshots != 0)
      require_table(header_.snapshots_offset, sizeof(wire::Snapshot));
    header_.header_length = static_cast<std::uint32_t>(version3_begin);
    if (header_.version < 3)
      check_l1_size();
  }

  void require_magic() {
    const std::uint32_t found = number4("magic");
    require(found == magic, fmt::format("a qcow2 image begins with {:#x}", magic));
  }

  // The disk must fit into what the L1 table can map.
  void check_l1_size() {
    if (!has_cluster_size() || !fields_[l1_size_field_].problem.empty() ||
        header_.size > limits::max_file_bytes)
      return;
    const std::uint64_t needed = divide_up(header_.size, Geometry(header_).l2_coverage());
    if (header_.l1_size < needed)
      fields_[l1_size_field_].problem =
          fmt::format("L1 table is too small: the disk needs {} entries", needed);
  }

  void check_refcount_table(std::size_t offset_field) {
    require(header_.refcount_table_clusters != 0, "there is no refcount table");
    if (!has_cluster_size())
      return;
    const std::uint64_t most = limits::max_refcount_table_bytes / header_.cluster_size();
    require(header_.refcount_table_clusters <= most, fmt::format("at most {} are allowed", most));
    std::string& problem = fields_[offset_field].problem;
    const std::uint64_t offset = header_.refcount_table_offset;
    if (!is_aligned(offset, header_.cluster_size()))
      problem = "it is not aligned to a cluster";
    else if (offset == 0 || offset >= file_size_)
      problem = fmt::format("the table is not in the file ({} bytes)", file_size_);
  }

  void read_version3() {
    header_.incompatible_features = number("incompatible_features", 8);
    require(header_.unknown_incompatible() == 0,
            fmt::format("the bits {:#x} are not known", header_.unknown_incompatible()));
    require(!header_.has_incompatible(incompatible::corrupt), "the corrupt bit is set");
    number("compatible_features", 8);  // unknown bits do no harm
    header_.autoclear_features = number("autoclear_features", 8);
    header_.refcount_order = number4("refcount_order");
    require(header_.refcount_order <= limits::max_refcount_order,
            fmt::format("at most {} is allowed", limits::max_refcount_order));
    header_.header_length = number4("header_length");
    require(header_.header_length >= version3_end,
            fmt::format("at least {} are needed", version3_end));
    require(!has_cluster_size() || header_.header_length <= header_.cluster_size(),
            "it is larger than a cluster");
    require(is_aligned(header_.header_length, 8), "it is not a multiple of 8");
    check_l1_size();
    if (header_.header_length > version3_end) {
      const auto type = number("compression_type", 1);
      require(type <= 1, "only 0 (zlib) and 1 (zstd) are defined");
      require((type != 0) == header_.has_incompatible(incompatible::compression_type),
              "the incompatible feature bit of the compression type does not agree with it");
    }
  }

  void read_extensions() {
    constexpr std::size_t most_extensions = 1000;
    const std::uint64_t cluster_end =
        has_cluster_size() ? std::min<std::uint64_t>(header_.cluster_size(), bytes_.size())
                           : bytes_.size();
    const std::uint64_t backing = header_.backing_file_offset;
    const std::uint64_t end = backing != 0 ? std::min(backing, cluster_end) : cluster_end;
    std::uint64_t at = header_.header_length;
    for (std::size_t count = 0; count < most_extensions; ++count) {
      const auto head = at < end ? load<wire::Extension>(bytes_, at) : std::nullopt;
      if (!head)
        return;
      const std::uint64_t length = head->length.get();
      const std::uint64_t data = at + sizeof(wire::Extension);
      const bool is_end = head->type.get() == extension::end;
      HeaderField field{.name = std::string(name_of(head->type.get())),
                        .offset = at,
                        .length = sizeof(wire::Extension) + length,
                        .value = head->type.get(),
                        .is_number = is_end};
      const bool fits = data <= end && length <= end - data;
      if (!fits)
        field.problem = fmt::format("its length {} reaches past the header area, which ends at {}",
                                    length, end);
      else if (!is_end)
        set_content(field, bytes_.subspan(data, length));
      fields_.push_back(std::move(field));
      if (is_end || !fits)
        return;
      at = data + align_up(length, 8);
    }
  }

  void set_content(HeaderField& field, ByteView data) {
    field.content = to_string(data.first(std::min(data.size(), most_content)));
    Header alone = header_;
    alone.extensions.push_back(
        {static_cast<std::uint32_t>(field.value), Bytes(data.begin(), data.end()), {}});
    if (!has_cluster_size())
      return;
    if (const Result<void> sound = check_extensions(alone); !sound)
      field.problem = sound.error().message;
    if (field.value == extension::backing_file_format && data.size() >= limits::max_format_name)
      field.problem = fmt::format("at most {} bytes are allowed", limits::max_format_name - 1);
  }

  void read_backing_file() {
    const std::uint64_t offset = header_.backing_file_offset;
    const std::uint64_t size = header_.backing_file_size;
    if (offset == 0 || size > limits::max_backing_file_size)
      return;
    HeaderField field{
        .name = "backing file name", .offset = offset, .length = size, .is_number = false};
    if (offset > bytes_.size() || size > bytes_.size() - offset)
      field.problem = "it does not lie in the first cluster of the file";
    else
      field.content = to_string(bytes_.subspan(offset, size));
    fields_.push_back(std::move(field));
  }

  ByteView bytes_;  // of the first cluster, as far as the file has it
  std::uint64_t file_size_;
  std::uint64_t at_ = 0;
  std::size_t l1_size_field_ = 0;
  Header header_;
  std::vector<HeaderField> fields_;
};

}  // namespace

Result<std::vector<HeaderField>> header_fields(const io::File& file) {
  Bytes bytes(1ULL << limits::max_cluster_bits);
  bytes.resize(TRY(file.read_at(HostOffset{0}, bytes)));
  // The first cluster ends where cluster_bits says, if it says something possible.
  const auto fixed = load<wire::Header>(bytes, 0);
  const std::uint32_t bits = fixed ? fixed->cluster_bits.get() : 0;
  if (bits >= limits::min_cluster_bits && bits <= limits::max_cluster_bits)
    bytes.resize(std::min<std::size_t>(bytes.size(), 1ULL << bits));
  return FieldReader(bytes, file.size()).read();
}

}  // namespace coldchain::qcow2
