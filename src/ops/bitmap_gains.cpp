// SPDX-License-Identifier: MIT
#include "bitmap_gains.hpp"

#include "dirty_bits.hpp"
#include "extents.hpp"

#include <algorithm>
#include <set>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using graph::Chain;
using graph::Layer;
using qcow2::Bitmap;

// The bitmaps of a layer, once they are read; none where QEMU refuses them.
class BitmapsOfLayer {
 public:
  explicit BitmapsOfLayer(const Layer& layer) : layer_(&layer) {
    if (!layer.mapping)
      return;
    const io::File& file = layer.qcow2().file();
    auto bitmaps = qcow2::read_bitmaps(file, layer.qcow2().header());
    is_readable_ = bitmaps && qcow2::check_bitmaps(file, layer.qcow2().header(), *bitmaps);
    if (is_readable_)
      bitmaps_ = std::move(*bitmaps);
  }

  [[nodiscard]] bool has(const std::string& name) const {
    return !is_readable_ || find_bitmap(bitmaps_, name) != nullptr;
  }

  // Why its bitmap of that name does not say all that changed; empty: it does.
  [[nodiscard]] std::string why_not(const std::string& name) const {
    const std::string& file = layer_->node->filename;
    const Bitmap* bitmap = find_bitmap(bitmaps_, name);
    if (!is_readable_)
      return fmt::format("the bitmaps of {} cannot be read", file);
    if (bitmap == nullptr)
      return fmt::format("{} has no bitmap of this name", file);
    if ((bitmap->flags & qcow2::bitmap_flags::in_use) != 0)
      return fmt::format("that of {} was not closed by its last writer", file);
    if ((bitmap->flags & qcow2::bitmap_flags::automatic) == 0)
      return fmt::format("that of {} is disabled", file);
    return {};
  }

  // Adds its bits to `dirty`; the same, where this cannot be done.
  [[nodiscard]] std::string add_bits(const std::string& name, std::uint64_t disk_size,
                                     ExtentBudget& budget, std::vector<GuestRange>& dirty) const {
    if (std::string why = why_not(name); !why.empty())
      return why;
    const Bitmap& bitmap = *find_bitmap(bitmaps_, name);
    const qcow2::Image& image = layer_->qcow2();
    const std::uint64_t size = std::min(layer_->guest_size, disk_size);
    const bool is_read =
        budget.spend_data(bitmap.bitmap_table_size * image.header().cluster_size()) &&
        add_dirty_ranges(image, bitmap, size, dirty);
    dirty = sorted_and_merged(std::move(dirty));
    return is_read ? "" : fmt::format("that of {} cannot be read", layer_->node->filename);
  }

 private:
  const Layer* layer_;
  std::vector<Bitmap> bitmaps_;
  bool is_readable_ = true;
};

std::vector<BitmapsOfLayer> bitmaps_of_layers(const Chain& chain) {
  std::vector<BitmapsOfLayer> all;
  for (const Layer& layer : chain.layers())
    all.emplace_back(layer);
  return all;
}

// The files of the layers whose bitmap of that name still counts below the image.
std::set<io::FileIdentity> counting(const Chain& chain, const std::vector<BitmapsOfLayer>& bitmaps,
                                    const std::string& name) {
  std::set<io::FileIdentity> files;
  for (std::size_t i = 0; i < bitmaps.size(); ++i) {
    files.insert(chain.layers()[i].node->file->status().identity);
    if (!bitmaps[i].why_not(name).empty())
      break;
  }
  return files;
}

}  // namespace

Result<BitmapGains> BitmapGains::make(const Chain& chain, const std::vector<std::size_t>& leaving,
                                      const Chain* onto) {
  BitmapGains gains;
  const std::vector<Bitmap> recording = TRY(recording_bitmaps(chain.layers().front().qcow2()));
  if (recording.empty() || (leaving.empty() && onto == nullptr))
    return gains;
  const std::vector<BitmapsOfLayer> now = bitmaps_of_layers(chain);
  const std::vector<BitmapsOfLayer> then =
      onto == nullptr ? std::vector<BitmapsOfLayer>{} : bitmaps_of_layers(*onto);
  ExtentBudget budget(chain);
  for (const Bitmap& bitmap : recording) {
    Gain gain{bitmap};
    const auto still =
        onto == nullptr ? std::set<io::FileIdentity>{} : counting(*onto, then, bitmap.name);
    for (std::size_t i = 1; i < now.size() && gain.all_because.empty(); ++i) {
      const bool leaves = std::find(leaving.begin(), leaving.end(), i) != leaving.end();
      const bool is_hidden = onto != nullptr && now[i].has(bitmap.name) &&
                             !still.contains(chain.layers()[i].node->file->status().identity);
      if (leaves || is_hidden)
        gain.all_because = now[i].add_bits(bitmap.name, chain.guest_size(), budget, gain.dirty);
    }
    gains.gains_.push_back(std::move(gain));
  }
  return gains;
}

void BitmapGains::add_copied(const Piece& piece, bool is_alone) {
  if (gains_.empty())
    return;
  if (piece.kind == PieceKind::zero)
    append_range(copied_, piece.guest);
  for (const analysis::Extent& source : piece.sources) {
    const bool is_own = source.present && source.layer == 0;
    if (piece.kind != PieceKind::reserve && !is_own && (source.present || !is_alone))
      append_range(copied_, source.guest);
  }
}

Result<void> BitmapGains::stage(edit::Transaction& transaction, ImageEditor& editor,
                                const qcow2::Image& image) const {
  // The bits of QEMU are those of whole sectors.
  const GuestOffset end{align_down(image.header().size, 512)};
  for (const Gain& gain : gains_) {
    std::vector<GuestRange> dirty = gain.dirty;
    dirty.insert(dirty.end(), copied_.begin(), copied_.end());
    if (!gain.all_because.empty())
      dirty = {{{0}, end}};
    dirty = sorted_and_merged(std::move(dirty));
    for (GuestRange& range : dirty)
      range.end = std::min(range.end, end);
    std::erase_if(dirty, [](const GuestRange& range) { return range.begin >= range.end; });
    TRY(stage_dirty_bits(transaction, editor, image, gain.bitmap, dirty, SetBits::with_references));
  }
  return {};
}

std::vector<std::string> BitmapGains::marked() const {
  std::vector<std::string> names;
  for (const Gain& gain : gains_) {
    if (gain.all_because.empty() && !(gain.dirty.empty() && copied_.empty()))
      names.push_back(gain.bitmap.name);
  }
  return names;
}

std::vector<DirtyBitmap> BitmapGains::all_dirty() const {
  std::vector<DirtyBitmap> bitmaps;
  for (const Gain& gain : gains_) {
    if (!gain.all_because.empty())
      bitmaps.push_back({gain.bitmap.name, gain.all_because});
  }
  return bitmaps;
}

std::vector<std::string> BitmapGains::names() const {
  std::vector<std::string> names;
  for (const Gain& gain : gains_)
    names.push_back(gain.bitmap.name);
  return names;
}

}  // namespace coldchain::ops
