// SPDX-License-Identifier: MIT
#include "bitmap_merge.hpp"

#include "bitmap_growth.hpp"
#include "dirty_bits.hpp"
#include "extents.hpp"
#include "header_change.hpp"
#include "soundness.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using graph::Layer;
using qcow2::Bitmap;

// Bitmaps of a layer that record what its guest writes.
Result<std::vector<Bitmap>> recording_bitmaps_of(const Layer& layer) {
  if (!layer.mapping)
    return std::vector<Bitmap>{};
  auto bitmaps = recording_bitmaps(layer.qcow2());
  return bitmaps ? std::move(bitmaps) : fail(about(layer, bitmaps.error()));
}

// Nothing where a layer in between has no such bitmap, or one that does not record: then it does
// not say all.
Result<std::optional<std::vector<GuestRange>>> dirty_above(const graph::Chain& chain,
                                                           std::size_t base,
                                                           const std::string& name) {
  std::vector<GuestRange> dirty;
  // The disk of the base afterwards. That of a layer in between may be larger.
  const std::uint64_t disk_size = std::max(chain.guest_size(), chain.layers()[base].guest_size);
  for (std::size_t i = 0; i < base; ++i) {
    const Layer& layer = chain.layers()[i];
    const std::vector<Bitmap> bitmaps = TRY(recording_bitmaps_of(layer));
    const Bitmap* bitmap = find_bitmap(bitmaps, name);
    if (bitmap == nullptr)
      return std::nullopt;
    const std::uint64_t size = std::min(layer.guest_size, disk_size);
    if (const auto added = add_dirty_ranges(layer.qcow2(), *bitmap, size, dirty); !added)
      return fail(about(layer, added.error()));
  }
  return std::optional(sorted_and_merged(std::move(dirty)));
}

qcow2::Extension extension_of(const std::vector<Bitmap>& bitmaps, std::uint64_t size,
                              HostOffset at) {
  qcow2::wire::BitmapsExtension fields{};
  fields.nb_bitmaps = static_cast<std::uint32_t>(bitmaps.size());
  fields.bitmap_directory_size = size;
  fields.bitmap_directory_offset = at.value;
  const ByteView bytes = bytes_of(fields);
  return {qcow2::extension::bitmaps, Bytes(bytes.begin(), bytes.end()), {}};
}

Error no_room() {
  return {ErrorCode::refused,
          "the header of the base has no room to add bitmaps in one write: create a bitmap there "
          "first with 'qemu-img bitmap --add'",
          0};
}

// Gives the base places for the bitmaps that are new, with their bits.
Result<void> add_bitmaps(edit::Transaction& transaction, ImageEditor& editor,
                         const qcow2::Image& image, std::uint64_t disk_size,
                         const std::vector<MergedBitmap>& merged, std::vector<Bitmap>& bitmaps) {
  const std::uint64_t cluster_size = image.header().cluster_size();
  for (const MergedBitmap& bitmap : merged) {
    if (!bitmap.is_new)
      continue;
    const std::uint64_t bits = divide_up(disk_size, 1ULL << bitmap.granularity_bits);
    const std::uint64_t entries = divide_up(bits, cluster_size * 8);
    if (entries > qcow2::limits::max_bitmap_table_entries ||
        entries * cluster_size > qcow2::limits::max_bitmap_bytes)
      return fail(ErrorCode::refused, fmt::format("bitmap '{}' would be too large for the base",
                                                  to_terminal(bitmap.name)));
    const std::uint64_t clusters = divide_up(entries * sizeof(be64), cluster_size);
    Bitmap added;
    added.bitmap_table_offset = TRY(editor.add_clusters(clusters)).value;
    added.bitmap_table_size = static_cast<std::uint32_t>(entries);
    added.flags = qcow2::bitmap_flags::automatic;
    added.granularity_bits = bitmap.granularity_bits;
    added.name = bitmap.name;
    TRY(transaction.stage_fresh({added.bitmap_table_offset}, Bytes(clusters * cluster_size)));
    TRY(stage_dirty_bits(transaction, editor, image, added, bitmap.dirty, SetBits::before_data));
    bitmaps.push_back(std::move(added));
  }
  return {};
}

// Nothing where the directory has them already.
Result<std::optional<qcow2::Extension>> place_bitmap_directory(edit::Transaction& transaction,
                                                               ImageEditor& editor,
                                                               const qcow2::Image& image,
                                                               const std::vector<Bitmap>& bitmaps) {
  const std::uint64_t cluster_size = image.header().cluster_size();
  const std::vector<Bitmap> before = TRY(qcow2::read_bitmaps(image.file(), image.header()));
  if (bitmaps == before)
    return std::nullopt;
  Bytes directory = qcow2::encode_bitmap_directory(bitmaps);
  const std::uint64_t size = directory.size();
  if (bitmaps.size() > qcow2::limits::max_bitmaps ||
      size > qcow2::limits::max_bitmap_directory_bytes)
    return fail(ErrorCode::refused, "the base cannot hold more bitmaps");
  directory.resize(align_up(size, cluster_size));
  const HostOffset at = TRY(editor.add_clusters(directory.size() / cluster_size));
  TRY(transaction.stage_fresh(at, directory));
  if (!before.empty()) {
    const auto fields = load<qcow2::wire::BitmapsExtension>(
        image.header().find_extension(qcow2::extension::bitmaps)->data, 0);
    editor.remove_clusters({fields->bitmap_directory_offset.get()},
                           divide_up(fields->bitmap_directory_size.get(), cluster_size));
  }
  return extension_of(bitmaps, size, at);
}

}  // namespace

Result<std::vector<MergedBitmap>> bitmaps_to_merge(const graph::Chain& chain, std::size_t base) {
  std::vector<MergedBitmap> merged;
  const Layer& target = chain.layers()[base];
  if (!target.mapping || target.qcow2().header().version < 3)
    return merged;
  const auto there = TRY(qcow2::read_bitmaps(target.qcow2().file(), target.qcow2().header()));
  const std::vector<Bitmap> recording = TRY(recording_bitmaps_of(target));
  std::vector<Bitmap> below;
  if (base + 1 < chain.layers().size())
    below = TRY(recording_bitmaps_of(chain.layers()[base + 1]));
  for (const Bitmap& bitmap : TRY(recording_bitmaps_of(chain.layers().front()))) {
    const bool is_new = find_bitmap(there, bitmap.name) == nullptr;
    if (is_new ? find_bitmap(below, bitmap.name) != nullptr
               : find_bitmap(recording, bitmap.name) == nullptr)
      continue;
    if (auto dirty = TRY(dirty_above(chain, base, bitmap.name)))
      merged.push_back({bitmap.name, bitmap.granularity_bits, is_new, std::move(*dirty)});
  }
  return merged;
}

Result<ChangedBitmaps> change_bitmaps(edit::Transaction& transaction, ImageEditor& editor,
                                      const qcow2::Image& image, std::uint64_t disk_size,
                                      const std::vector<MergedBitmap>& merged,
                                      const std::vector<GuestRange>& changed) {
  ChangedBitmaps result;
  std::vector<Bitmap> bitmaps = TRY(grow_bitmaps(transaction, editor, image, disk_size));
  for (const Bitmap& bitmap : bitmaps) {
    if (!is_recording(bitmap))
      continue;
    std::vector<GuestRange> dirty = changed;
    for (const MergedBitmap& other : merged) {
      if (other.name == bitmap.name)
        dirty.insert(dirty.end(), other.dirty.begin(), other.dirty.end());
    }
    TRY(stage_dirty_bits(transaction, editor, image, bitmap, sorted_and_merged(std::move(dirty)),
                         SetBits::before_data));
    result.marked.push_back(bitmap.name);
  }
  TRY(add_bitmaps(transaction, editor, image, disk_size, merged, bitmaps));
  result.extension = TRY(place_bitmap_directory(transaction, editor, image, bitmaps));
  return result;
}

// Readers that find the extension without its autoclear bit ignore it. With a bitmap that is there
// already, the fields change at once; else the name of the backing file first makes room.
Result<void> stage_bitmaps_extension(edit::Transaction& transaction,
                                     const qcow2::Extension& extension) {
  const qcow2::Image image = TRY(qcow2::Image::open(transaction.view()));
  qcow2::Header header = image.header();
  std::uint64_t end = qcow2::encode_header(header).size();
  const auto same =
      std::find_if(header.extensions.begin(), header.extensions.end(),
                   [&](const qcow2::Extension& other) { return other.type == extension.type; });
  if (same != header.extensions.end() && same->data.size() == extension.data.size()) {
    same->data = extension.data;
  } else {
    if (same != header.extensions.end())
      return fail(no_room());
    qcow2::Header roomy = header;
    roomy.extensions.push_back(extension);
    roomy.has_end_mark = true;
    const std::optional<std::string> name = header.backing_file_bytes;
    if (name) {
      const std::uint64_t offset = align_up(std::max(end, end_of_extensions(roomy)), 8);
      set_name(header, *name, offset);
      set_name(roomy, *name, offset);
      if (!TRY(stage_header(transaction, edit::Phase::extend, header, end)))
        return fail(no_room());
      end = qcow2::encode_header(header).size();
    }
    header = std::move(roomy);
  }
  const bool is_known = (header.autoclear_features & qcow2::autoclear::bitmaps) != 0;
  if (!TRY(stage_header(transaction, edit::Phase::link, header, end)))
    return fail(no_room());
  if (is_known)
    return {};
  header.autoclear_features |= qcow2::autoclear::bitmaps;
  if (!TRY(stage_header(transaction, edit::Phase::conclude, header,
                        qcow2::encode_header(header).size())))
    return fail(no_room());
  return {};
}

}  // namespace coldchain::ops
