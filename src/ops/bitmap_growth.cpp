// SPDX-License-Identifier: MIT
#include "bitmap_growth.hpp"

#include "dirty_bits.hpp"

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using qcow2::Bitmap;

std::uint64_t bits_for(const Bitmap& bitmap, std::uint64_t size) {
  return divide_up(align_down(size, 512), bitmap.granularity());
}

class BitmapGrower {
 public:
  BitmapGrower(edit::Transaction& transaction, ImageEditor& editor, const qcow2::Image& image)
      : transaction_(transaction),
        editor_(editor),
        size_before_(image.header().size),
        cluster_size_(image.header().cluster_size()) {}

  Result<void> grow(Bitmap& bitmap, std::uint64_t size) {
    const std::uint64_t bits = bits_for(bitmap, size);
    if (bits == bits_for(bitmap, size_before_))
      return {};
    TRY(part_last_ones(bitmap));
    const std::uint64_t entries = divide_up(bits, bits_per_cluster());
    return entries > bitmap.bitmap_table_size ? add_entries(bitmap, entries) : Result<void>{};
  }

 private:
  [[nodiscard]] std::uint64_t bits_per_cluster() const { return cluster_size_ * 8; }

  // An entry that says that all of its bits are set would say it of the new ones, too.
  Result<void> part_last_ones(const Bitmap& bitmap) {
    const std::uint64_t bits = bits_for(bitmap, size_before_);
    const std::uint64_t last = bits % bits_per_cluster();
    if (last == 0)
      return {};
    const HostOffset entry_at{bitmap.bitmap_table_offset +
                              bits / bits_per_cluster() * sizeof(be64)};
    be64 raw;
    TRY(io::read_exactly(transaction_.view(), entry_at, std::as_writable_bytes(std::span(&raw, 1)),
                         "bitmap table entry"));
    if ((raw.get() & qcow2::offset_mask) != 0 || (raw.get() & all_ones_flag) == 0)
      return {};
    Bytes ones(cluster_size_);
    set_bits(ones, 0, last);
    const HostOffset at = TRY(editor_.add_cluster());
    TRY(transaction_.stage_fresh(at, ones));
    // Not before the refcount blocks that count the cluster are known to everybody.
    return transaction_.stage_entry(Phase::link, entry_at, at.value);
  }

  Result<void> add_entries(Bitmap& bitmap, std::uint64_t entries) {
    const HostOffset at{bitmap.bitmap_table_offset};
    const std::uint64_t bytes_before = std::uint64_t{bitmap.bitmap_table_size} * sizeof(be64);
    const std::uint64_t bytes = entries * sizeof(be64);
    const std::uint64_t room = align_up(bytes_before, cluster_size_);
    bitmap.bitmap_table_size = static_cast<std::uint32_t>(entries);
    if (bytes <= room)
      return transaction_.stage(Phase::fresh, at + bytes_before, Bytes(bytes - bytes_before));
    Bytes table(bytes_before);
    TRY(io::read_exactly(transaction_.view(), at, table, "bitmap table"));
    table.resize(align_up(bytes, cluster_size_));
    editor_.remove_clusters(at, room / cluster_size_);
    const HostOffset moved = TRY(editor_.add_clusters(table.size() / cluster_size_));
    bitmap.bitmap_table_offset = moved.value;
    return transaction_.stage_fresh(moved, table);
  }

  edit::Transaction& transaction_;
  ImageEditor& editor_;
  std::uint64_t size_before_;  // of the disk
  std::uint64_t cluster_size_;
};

// Whoever reads the bitmaps until the header vouches for them again finds none.
Result<void> disown_bitmaps(edit::Transaction& transaction) {
  const qcow2::Image image = TRY(qcow2::Image::open(transaction.view()));
  return transaction.stage_entry(
      Phase::announce,
      {sizeof(qcow2::wire::Header) + offsetof(qcow2::wire::HeaderVersion3, autoclear_features)},
      image.header().autoclear_features & ~qcow2::autoclear::bitmaps);
}

}  // namespace

Result<void> check_bitmaps_may_grow(const qcow2::Image& image, const std::string& name,
                                    std::uint64_t size) {
  const std::uint64_t cluster_size = image.header().cluster_size();
  for (const Bitmap& bitmap : TRY(qcow2::read_bitmaps(image.file(), image.header()))) {
    if ((bitmap.flags & qcow2::bitmap_flags::in_use) != 0)
      return fail(
          ErrorCode::refused,
          fmt::format("its disk would grow to {} bytes, but bitmap '{}' was not closed by its last "
                      "writer and cannot grow. Remove it and make a full backup: qemu-img bitmap "
                      "--remove {} {}",
                      size, to_terminal(bitmap.name), to_terminal(to_shell_word(name)),
                      to_terminal(to_shell_word(bitmap.name))));
    const std::uint64_t entries = divide_up(bits_for(bitmap, size), cluster_size * 8);
    if (entries > qcow2::limits::max_bitmap_table_entries ||
        entries * cluster_size > qcow2::limits::max_bitmap_bytes)
      return fail(
          ErrorCode::refused,
          fmt::format("its bitmap '{}' would be too large for a disk of {} bytes: remove it with "
                      "'qemu-img bitmap --remove', or add one with larger granules",
                      to_terminal(bitmap.name), size));
  }
  return {};
}

Result<std::vector<Bitmap>> grow_bitmaps(edit::Transaction& transaction, ImageEditor& editor,
                                         const qcow2::Image& image, std::uint64_t size) {
  const std::vector<Bitmap> before = TRY(qcow2::read_bitmaps(image.file(), image.header()));
  std::vector<Bitmap> bitmaps = before;
  if (size <= image.header().size)
    return bitmaps;
  BitmapGrower grower(transaction, editor, image);
  for (Bitmap& bitmap : bitmaps)
    TRY(grower.grow(bitmap, size));
  if (bitmaps != before)
    TRY(disown_bitmaps(transaction));
  return bitmaps;
}

}  // namespace coldchain::ops
