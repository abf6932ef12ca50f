// SPDX-License-Identifier: MIT
// The directory of persistent bitmaps. qcow2.rst, "Bitmaps".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

namespace bitmap_flags {
constexpr std::uint32_t in_use = 1U << 0;
constexpr std::uint32_t automatic = 1U << 1;  // `auto` in the specification
constexpr std::uint32_t extra_data_compatible = 1U << 2;
}  // namespace bitmap_flags

struct Bitmap {
  std::uint64_t bitmap_table_offset = 0;
  std::uint32_t bitmap_table_size = 0;  // entries
  std::uint32_t flags = 0;
  std::uint8_t type = 1;
  std::uint8_t granularity_bits = 16;
  Bytes extra_data;
  std::string name;

  friend bool operator==(const Bitmap&, const Bitmap&) = default;
  [[nodiscard]] std::uint64_t granularity() const { return 1ULL << granularity_bits; }
  // How many table entries the disk needs: a bit per granule, in whole clusters of bits.
  [[nodiscard]] std::uint64_t needed_entries(const Header& header) const;
};

constexpr std::uint8_t dirty_tracking_type = 1;  // the only one that is defined

[[nodiscard]] Result<std::vector<Bitmap>> decode_bitmap_directory(ByteView directory,
                                                                  std::uint32_t nb_bitmaps);
// Fails where QEMU refuses the image for what the directory says of this bitmap.
// QEMU block/qcow2-bitmap.c: check_dir_entry(), bitmap_list_load(), load_bitmap_data().
[[nodiscard]] Result<void> check_bitmap(const Bitmap& bitmap, const Header& header);

// Fails where QEMU refuses the image for what its directory says, of which `bitmaps` was read, or
// for an entry in the table of a bitmap that it loads. QEMU block/qcow2-bitmap.c:
// bitmap_list_load(), qcow2_load_dirty_bitmaps(), check_table_entry().
[[nodiscard]] Result<void> check_bitmaps(const io::File& file, const Header& header,
                                         const std::vector<Bitmap>& bitmaps);

[[nodiscard]] Bytes encode_bitmap_directory(const std::vector<Bitmap>& bitmaps);

// The bitmaps of an image; none where the autoclear bit says that the extension is stale.
[[nodiscard]] Result<std::vector<Bitmap>> read_bitmaps(const io::File& file, const Header& header);

}  // namespace coldchain::qcow2
