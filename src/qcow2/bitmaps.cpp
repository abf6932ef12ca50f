// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <set>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

Result<void> check_limits(const wire::Bitmap& fixed, std::uint32_t index) {
  const auto refuse = [index](const char* what, std::uint64_t value, std::uint64_t least,
                              std::uint64_t most) {
    return fail(ErrorCode::corrupt,
                fmt::format("bitmap directory entry {}: {} is {} (QEMU takes {} to {})", index,
                            what, value, least, most));
  };
  const auto granularity_bits = std::to_integer<unsigned>(fixed.granularity_bits);
  if (granularity_bits < limits::min_bitmap_granularity_bits ||
      granularity_bits > limits::max_bitmap_granularity_bits)
    return refuse("granularity_bits", granularity_bits, limits::min_bitmap_granularity_bits,
                  limits::max_bitmap_granularity_bits);
  if (fixed.name_size.get() == 0 || fixed.name_size.get() > limits::max_bitmap_name)
    return refuse("name_size", fixed.name_size.get(), 1, limits::max_bitmap_name);
  if (fixed.bitmap_table_size.get() > limits::max_bitmap_table_entries)
    return refuse("bitmap_table_size", fixed.bitmap_table_size.get(), 1,
                  limits::max_bitmap_table_entries);
  return {};
}

// QEMU block/qcow2-bitmap.c: check_dir_entry. The limit is on the bitmap, an entry per cluster.
Result<void> check_sizes(const std::vector<Bitmap>& bitmaps, std::uint64_t cluster_size) {
  for (std::size_t i = 0; i < bitmaps.size(); ++i) {
    if (bitmaps[i].bitmap_table_size > limits::max_bitmap_bytes / cluster_size)
      return fail(ErrorCode::too_large,
                  fmt::format("bitmap directory entry {}: bitmap_table_size is {} (QEMU takes at "
                              "most {} in clusters of {} bytes)",
                              i, bitmaps[i].bitmap_table_size,
                              limits::max_bitmap_bytes / cluster_size, cluster_size));
  }
  return {};
}

// The names that are not those of bitmaps that are known when they are loaded.
Result<void> check_names(const std::vector<Bitmap>& bitmaps) {
  std::set<std::string_view> names;
  for (const Bitmap& bitmap : bitmaps) {
    const bool is_new = names.insert(bitmap.name).second;
    if (!is_new && (bitmap.flags & bitmap_flags::in_use) == 0)
      return fail(ErrorCode::corrupt,
                  fmt::format("two bitmaps are named '{}'", to_terminal(bitmap.name)));
  }
  return {};
}

// Where the tables lie of the bitmaps that are loaded: sorted, disjoint.
std::vector<HostRange> tables_of(const std::vector<Bitmap>& bitmaps) {
  std::vector<HostRange> tables;
  for (const Bitmap& bitmap : bitmaps) {
    const std::uint64_t bytes = std::uint64_t{bitmap.bitmap_table_size} * sizeof(be64);
    if ((bitmap.flags & bitmap_flags::in_use) == 0)
      tables.push_back({{bitmap.bitmap_table_offset}, {bitmap.bitmap_table_offset + bytes}});
  }
  std::sort(tables.begin(), tables.end(),
            [](const HostRange& a, const HostRange& b) { return a.begin < b.begin; });
  std::vector<HostRange> disjoint;
  for (const HostRange& table : tables) {
    if (!disjoint.empty() && table.begin <= disjoint.back().end)
      disjoint.back().end = std::max(disjoint.back().end, table.end);
    else
      disjoint.push_back(table);
  }
  return disjoint;
}

Result<void> check_table_entries(ByteView table, HostOffset at, const Header& header) {
  // qcow2.rst, "Bitmap table": bits 1-8 and 56-63 are reserved; bit 0 is, too, where there is an
  // offset.
  constexpr std::uint64_t reserved = 0xff00'0000'0000'01fe;
  for (std::size_t i = 0; i < table.size(); i += sizeof(be64)) {
    const std::uint64_t entry = load<be64>(table, i)->get();
    const std::uint64_t offset = entry & offset_mask;
    if ((entry & reserved) != 0 || (offset != 0 && (entry & 1) != 0) ||
        !is_aligned(offset, header.cluster_size()))
      return fail(ErrorCode::corrupt,
                  fmt::format("bitmap table entry {:#x} at {:#x}", entry, at.value + i));
  }
  return {};
}

// Each place once, whoever has it for its table; what is in holes is zeros, which is an entry.
Result<void> check_tables(const io::File& file, const Header& header,
                          const std::vector<Bitmap>& bitmaps) {
  std::array<std::byte, 1 << 16> piece{};
  for (const HostRange& table : tables_of(bitmaps)) {
    for (const HostRange& data : TRY(io::data_ranges(file, table))) {
      const std::uint64_t begin = data.begin.value / sizeof(be64) * sizeof(be64);
      for (std::uint64_t at = begin; at < data.end.value; at += piece.size()) {
        const std::uint64_t bytes =
            std::min<std::uint64_t>(piece.size(), align_up(data.end.value - at, sizeof(be64)));
        const ByteSpan entries = ByteSpan(piece).first(bytes);
        TRY(io::read_zero_extended(file, {at}, entries));
        TRY(check_table_entries(entries, {at}, header));
      }
    }
  }
  return {};
}

}  // namespace

std::uint64_t Bitmap::needed_entries(const Header& header) const {
  const std::uint64_t bits = divide_up(header.size / 512 * 512, granularity());
  return divide_up(divide_up(bits, 8), header.cluster_size());
}

Result<std::vector<Bitmap>> decode_bitmap_directory(ByteView directory, std::uint32_t nb_bitmaps) {
  std::vector<Bitmap> bitmaps;
  std::size_t offset = 0;
  for (std::uint32_t index = 0; index < nb_bitmaps; ++index) {
    const auto fixed = load<wire::Bitmap>(directory, offset);
    if (!fixed)
      return fail(ErrorCode::corrupt,
                  fmt::format("bitmap directory ends inside entry {} of {}", index, nb_bitmaps));
    TRY(check_limits(*fixed, index));
    offset += sizeof(wire::Bitmap);
    const std::size_t extra = fixed->extra_data_size.get();
    const std::size_t name = fixed->name_size.get();
    if (directory.size() - offset < extra + name)
      return fail(ErrorCode::corrupt,
                  fmt::format("bitmap directory ends inside entry {} of {}", index, nb_bitmaps));
    Bitmap bitmap;
    bitmap.bitmap_table_offset = fixed->bitmap_table_offset.get();
    bitmap.bitmap_table_size = fixed->bitmap_table_size.get();
    bitmap.flags = fixed->flags.get();
    bitmap.type = std::to_integer<std::uint8_t>(fixed->type);
    bitmap.granularity_bits = std::to_integer<std::uint8_t>(fixed->granularity_bits);
    const ByteView extra_data = directory.subspan(offset, extra);
    bitmap.extra_data.assign(extra_data.begin(), extra_data.end());
    bitmap.name = to_string(directory.subspan(offset + extra, name));
    bitmaps.push_back(std::move(bitmap));
    offset = std::min<std::size_t>(align_up(offset + extra + name, 8), directory.size());
  }
  return bitmaps;
}

Result<void> check_bitmap(const Bitmap& bitmap, const Header& header) {
  const auto refuse = [&](const std::string& what) {
    return fail(ErrorCode::corrupt, fmt::format("bitmap '{}': {}", to_terminal(bitmap.name), what));
  };
  const std::uint64_t entries = bitmap.bitmap_table_size;
  const std::uint64_t offset = bitmap.bitmap_table_offset;
  if (!bitmap.extra_data.empty())
    return refuse(
        fmt::format("{} bytes of extra data, which QEMU does not know", bitmap.extra_data.size()));
  if ((bitmap.flags & ~(bitmap_flags::in_use | bitmap_flags::automatic)) != 0)
    return refuse(fmt::format("flags {:#x}", bitmap.flags));
  if (bitmap.type != dirty_tracking_type)
    return refuse(fmt::format("type {}", bitmap.type));
  if (entries == 0 || offset == 0 || !is_aligned(offset, header.cluster_size()))
    return refuse(fmt::format("table of {} entries at {:#x}", entries, offset));
  if (entries * header.cluster_size() > limits::max_bitmap_bytes)
    return refuse(fmt::format("table of {} entries, for more than {} bytes", entries,
                              limits::max_bitmap_bytes));
  // The rest only counts where QEMU loads the bitmap.
  if ((bitmap.flags & bitmap_flags::in_use) != 0)
    return {};
  if (entries != bitmap.needed_entries(header))
    return refuse(
        fmt::format("table of {} entries, not {}", entries, bitmap.needed_entries(header)));
  if (offset > limits::max_file_bytes - entries * sizeof(be64))
    return refuse(fmt::format("table at {:#x}, behind the end of every file", offset));
  return {};
}

Result<void> check_bitmaps(const io::File& file, const Header& header,
                           const std::vector<Bitmap>& bitmaps) {
  if (bitmaps.empty())
    return {};
  const wire::BitmapsExtension fields =
      TRY(decode_bitmaps_extension(*header.find_extension(extension::bitmaps), header));
  const std::uint64_t size = fields.bitmap_directory_size.get();
  if (const std::uint64_t used = encode_bitmap_directory(bitmaps).size(); used != size)
    return fail(ErrorCode::corrupt,
                fmt::format("bitmap directory: {} entries take {} of its {} bytes", bitmaps.size(),
                            used, size));
  for (const Bitmap& bitmap : bitmaps)
    TRY(check_bitmap(bitmap, header));
  TRY(check_names(bitmaps));
  return check_tables(file, header, bitmaps);
}

Bytes encode_bitmap_directory(const std::vector<Bitmap>& bitmaps) {
  Bytes bytes;
  for (const Bitmap& bitmap : bitmaps) {
    wire::Bitmap fixed;
    fixed.bitmap_table_offset = bitmap.bitmap_table_offset;
    fixed.bitmap_table_size = bitmap.bitmap_table_size;
    fixed.flags = bitmap.flags;
    fixed.type = std::byte{bitmap.type};
    fixed.granularity_bits = std::byte{bitmap.granularity_bits};
    fixed.name_size = static_cast<std::uint16_t>(bitmap.name.size());
    fixed.extra_data_size = static_cast<std::uint32_t>(bitmap.extra_data.size());
    append(bytes, fixed);
    bytes.insert(bytes.end(), bitmap.extra_data.begin(), bitmap.extra_data.end());
    const ByteView name = text_bytes(bitmap.name);
    bytes.insert(bytes.end(), name.begin(), name.end());
    bytes.resize(align_up(bytes.size(), 8));
  }
  return bytes;
}

Result<std::vector<Bitmap>> read_bitmaps(const io::File& file, const Header& header) {
  const Extension* found = header.find_extension(extension::bitmaps);
  const bool consistent = (header.autoclear_features & autoclear::bitmaps) != 0;
  if (found == nullptr || !consistent)
    return std::vector<Bitmap>{};
  const wire::BitmapsExtension fields = TRY(decode_bitmaps_extension(*found, header));
  const std::uint32_t count = fields.nb_bitmaps.get();
  const std::uint64_t size = fields.bitmap_directory_size.get();
  const std::uint64_t offset = fields.bitmap_directory_offset.get();
  if (size > file.size())
    return fail(ErrorCode::too_large,
                fmt::format("bitmaps extension: bitmap_directory_size is {}", size));
  Bytes directory(size);
  TRY(io::read_exactly(file, {offset}, directory, "bitmap directory"));
  std::vector<Bitmap> bitmaps = TRY(decode_bitmap_directory(directory, count));
  TRY(check_sizes(bitmaps, header.cluster_size()));
  return bitmaps;
}

}  // namespace coldchain::qcow2
