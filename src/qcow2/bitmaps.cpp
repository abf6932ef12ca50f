// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
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
