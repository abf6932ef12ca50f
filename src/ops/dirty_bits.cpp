// SPDX-License-Identifier: MIT
#include "dirty_bits.hpp"

#include "extents.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;

constexpr std::size_t most_ranges = 1 << 22;

class BitmapWriter {
 public:
  BitmapWriter(edit::Transaction& transaction, ImageEditor& editor, const qcow2::Image& image,
               const qcow2::Bitmap& bitmap, Phase phase)
      : transaction_(transaction),
        editor_(editor),
        bitmap_(bitmap),
        phase_(phase),
        bits_per_cluster_(image.header().cluster_size() * 8),
        bytes_(image.header().cluster_size()) {}

  Result<void> add(GuestRange changed) {
    const std::uint64_t end = ((changed.end.value - 1) >> bitmap_.granularity_bits) + 1;
    for (std::uint64_t bit = changed.begin.value >> bitmap_.granularity_bits; bit < end;) {
      const std::uint64_t cluster = bit / bits_per_cluster_;
      const std::uint64_t stop = std::min(end, (cluster + 1) * bits_per_cluster_);
      TRY(open(cluster));
      if (at_.value == 0 && stop - bit == bits_per_cluster_)
        TRY(fill());
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
      return transaction_.stage(phase_, at_, bytes_);
    at_ = TRY(editor_.add_cluster());
    TRY(transaction_.stage_fresh(at_, bytes_));
    // Not before the refcount blocks that count the cluster are known to everybody.
    return transaction_.stage_entry(Phase::link, entry_at(), at_.value);
  }

 private:
  [[nodiscard]] HostOffset entry_at() const {
    return {bitmap_.bitmap_table_offset + cluster_ * sizeof(be64)};
  }

  Result<void> fill() {
    if (!is_full_)
      TRY(transaction_.stage_entry(phase_, entry_at(), all_ones_flag));
    is_full_ = true;
    return {};
  }

  Result<void> open(std::uint64_t cluster) {
    if (is_open_ && cluster_ == cluster)
      return {};
    TRY(close());
    if (cluster >= bitmap_.bitmap_table_size)
      return fail(ErrorCode::corrupt,
                  fmt::format("the table of bitmap '{}' is too short for the disk",
                              to_terminal(bitmap_.name)));
    cluster_ = cluster;
    be64 raw;
    TRY(io::read_exactly(transaction_.view(), entry_at(),
                         std::as_writable_bytes(std::span(&raw, 1)), "bitmap table entry"));
    at_ = {raw.get() & qcow2::offset_mask};
    is_full_ = at_.value == 0 && (raw.get() & all_ones_flag) != 0;
    std::fill(bytes_.begin(), bytes_.end(), std::byte{0});
    if (at_.value != 0)
      TRY(io::read_exactly(transaction_.view(), at_, bytes_, "bitmap"));
    is_open_ = true;
    return {};
  }

  edit::Transaction& transaction_;
  ImageEditor& editor_;
  const qcow2::Bitmap& bitmap_;
  Phase phase_;  // of bits in clusters that it has
  std::uint64_t bits_per_cluster_;
  Bytes bytes_;
  std::uint64_t cluster_ = 0;  // which of the bitmap's is open
  HostOffset at_;              // where it lies; 0: nowhere yet
  bool is_open_ = false;
  bool is_full_ = false;  // all of its bits are set, and it lies nowhere
};

// Calls `take` for each run of bits that are set, as its first and its end.
template <class Take>
void for_each_run(ByteView bits, const Take& take) {
  for (std::uint64_t byte = 0; byte < bits.size(); ++byte) {
    const auto value = std::to_integer<unsigned>(bits[byte]);
    if (value == 0xff)
      take(byte * 8, byte * 8 + 8);
    for (unsigned bit = 0; bit < 8 && value != 0 && value != 0xff; ++bit) {
      if ((value >> bit & 1) != 0)
        take(byte * 8 + bit, byte * 8 + bit + 1);
    }
  }
}

}  // namespace

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

const qcow2::Bitmap* find_bitmap(const std::vector<qcow2::Bitmap>& bitmaps,
                                 const std::string& name) {
  const auto found = std::find_if(bitmaps.begin(), bitmaps.end(),
                                  [&](const qcow2::Bitmap& bitmap) { return bitmap.name == name; });
  return found == bitmaps.end() ? nullptr : &*found;
}

Result<void> add_dirty_ranges(const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                              std::uint64_t size, std::vector<GuestRange>& dirty) {
  TRY(qcow2::check_bitmap(bitmap, image.header()));
  const std::uint64_t cluster_size = image.header().cluster_size();
  const std::uint64_t bytes_per_cluster = cluster_size * 8 * bitmap.granularity();
  const std::uint64_t clusters =
      std::min<std::uint64_t>(divide_up(size, bytes_per_cluster), bitmap.bitmap_table_size);
  const auto add = [&](std::uint64_t begin, std::uint64_t end) {
    if (begin < size)
      append_range(dirty, GuestRange{{begin}, {std::min(end, size)}});
  };
  Bytes bits(cluster_size);
  for (std::uint64_t i = 0; i < clusters; ++i) {
    be64 raw;
    TRY(io::read_exactly(image.file(), {bitmap.bitmap_table_offset + i * sizeof(be64)},
                         std::as_writable_bytes(std::span(&raw, 1)), "bitmap table entry"));
    const HostOffset at{raw.get() & qcow2::offset_mask};
    const std::uint64_t begin = i * bytes_per_cluster;
    if (at.value == 0) {
      if ((raw.get() & all_ones_flag) != 0)
        add(begin, begin + bytes_per_cluster);
      continue;
    }
    TRY(io::read_exactly(image.file(), at, bits, "bitmap"));
    for_each_run(bits, [&](std::uint64_t first, std::uint64_t end) {
      add(begin + first * bitmap.granularity(), begin + end * bitmap.granularity());
    });
    if (dirty.size() > most_ranges)
      return fail(ErrorCode::refused,
                  fmt::format("bitmap '{}' marks more than {} ranges: merge it with 'qemu-img "
                              "bitmap --merge' afterwards",
                              to_terminal(bitmap.name), most_ranges));
  }
  return {};
}

bool is_recording(const qcow2::Bitmap& bitmap) {
  return (bitmap.flags & qcow2::bitmap_flags::automatic) != 0 &&
         (bitmap.flags & qcow2::bitmap_flags::in_use) == 0;
}

Result<std::vector<qcow2::Bitmap>> recording_bitmaps(const qcow2::Image& image) {
  std::vector<qcow2::Bitmap> bitmaps = TRY(qcow2::read_bitmaps(image.file(), image.header()));
  std::erase_if(bitmaps, [](const qcow2::Bitmap& bitmap) { return !is_recording(bitmap); });
  return bitmaps;
}

Result<void> stage_dirty_bits(edit::Transaction& transaction, ImageEditor& editor,
                              const qcow2::Image& image, const qcow2::Bitmap& bitmap,
                              const std::vector<GuestRange>& changed, SetBits when) {
  BitmapWriter writer(transaction, editor, image, bitmap,
                      when == SetBits::before_data ? Phase::secure : Phase::link);
  for (const GuestRange& range : changed)
    TRY(writer.add(range));
  return writer.close();
}

}  // namespace coldchain::ops
