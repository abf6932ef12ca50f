// SPDX-License-Identifier: MIT
#include "dirty_bits.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;

void set_bits(ByteSpan bytes, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t bit = first; bit < end; ++bit) {
    if (bit % 8 == 0 && end - bit >= 8) {
      bytes[bit / 8] = std::byte{0xff};
      bit += 7;
    } else {
      bytes[bit / 8] |= std::byte{1} << (bit % 8);
    }
  }
}

class BitmapWriter {
 public:
  BitmapWriter(edit::Transaction& transaction, ImageEditor& editor, const qcow2::Image& image,
               const qcow2::Bitmap& bitmap)
      : transaction_(transaction),
        editor_(editor),
        bitmap_(bitmap),
        bits_per_cluster_(image.header().cluster_size() * 8),
        bytes_(image.header().cluster_size()) {}

  Result<void> add(GuestRange changed) {
    const std::uint64_t end = ((changed.end.value - 1) >> bitmap_.granularity_bits) + 1;
    for (std::uint64_t bit = changed.begin.value >> bitmap_.granularity_bits; bit < end;) {
      const std::uint64_t cluster = bit / bits_per_cluster_;
      const std::uint64_t stop = std::min(end, (cluster + 1) * bits_per_cluster_);
      TRY(open(cluster));
      if (!is_full_)
        set_bits(bytes_, bit % bits_per_cluster_, stop - cluster * bits_per_cluster_);
      bit = stop;
    }
    return {};
  }

  Result<void> close() {
    if (!is_open_ || is_full_)
      return {};
    is_open_ = false;
    if (at_.value != 0)
      return transaction_.stage(Phase::secure, at_, bytes_);
    at_ = TRY(editor_.add_cluster());
    TRY(transaction_.stage_fresh(at_, bytes_));
    // Not before the refcount blocks that count the cluster are known to everybody.
    return transaction_.stage_entry(
        Phase::link, {bitmap_.bitmap_table_offset + cluster_ * sizeof(be64)}, at_.value);
  }

 private:
  Result<void> open(std::uint64_t cluster) {
    if (is_open_ && cluster_ == cluster)
      return {};
    TRY(close());
    if (cluster >= bitmap_.bitmap_table_size)
      return fail(ErrorCode::corrupt,
                  fmt::format("the table of bitmap '{}' is too short for the disk",
                              to_terminal(bitmap_.name)));
    be64 raw;
    TRY(io::read_exactly(transaction_.view(),
                         {bitmap_.bitmap_table_offset + cluster * sizeof(be64)},
                         std::as_writable_bytes(std::span(&raw, 1)), "bitmap table entry"));
    at_ = {raw.get() & qcow2::offset_mask};
    is_full_ = at_.value == 0 && (raw.get() & all_ones_flag) != 0;
    std::fill(bytes_.begin(), bytes_.end(), std::byte{0});
    if (at_.value != 0)
      TRY(io::read_exactly(transaction_.view(), at_, bytes_, "bitmap"));
    cluster_ = cluster;
    is_open_ = true;
    return {};
  }

  edit::Transaction& transaction_;
  ImageEditor& editor_;
  const qcow2::Bitmap& bitmap_;
  std::uint64_t bits_per_cluster_;
  Bytes bytes_;
  std::uint64_t cluster_ = 0;  // which of the bitmap's is open
  HostOffset at_;              // where it lies; 0: nowhere yet
  bool is_open_ = false;
  bool is_full_ = false;  // all of its bits are set, and it lies nowhere
};

}  // namespace

Result<std::vector<qcow2::Bitmap>> recording_bitmaps(const qcow2::Image& image) {
  std::vector<qcow2::Bitmap> bitmaps = TRY(qcow2::read_bitmaps(image.file(), image.header()));
  std::erase_if(bitmaps, [](const qcow2::Bitmap& bitmap) {
    return (bitmap.flags & qcow2::bitmap_flags::automatic) == 0 ||
           (bitmap.flags & qcow2::bitmap_flags::in_use) != 0;
  });
  return bitmaps;
}

Result<void> check_bitmaps_reach(const qcow2::Image& image, std::uint64_t size) {
  for (const qcow2::Bitmap& bitmap : TRY(qcow2::read_bitmaps(image.file(), image.header()))) {
    const std::uint64_t bits = divide_up(size, bitmap.granularity());
    if (divide_up(bits, image.header().cluster_size() * 8) > bitmap.bitmap_table_size)
      return fail(
          ErrorCode::refused,
          fmt::format("its bitmap '{}' has no room for a disk of {} bytes: enlarge the disk with "
                      "'qemu-img resize', or remove the bitmap with 'qemu-img bitmap --remove'",
                      to_terminal(bitmap.name), size));
  }
  return {};
}

Result<void> stage_dirty_bits(edit::Transaction& transaction, ImageEditor& editor,
                              const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                              const std::vector<GuestRange>& changed) {
  BitmapWriter writer(transaction, editor, image, bitmap);
  for (const GuestRange& range : changed)
    TRY(writer.add(range));
  return writer.close();
}

}  // namespace coldchain::ops
