// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>

#include <coldchain/base/checked.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <zlib.h>
#include <zstd.h>

namespace coldchain::testing {

namespace {

Bytes deflate(const Bytes& plain) {
  z_stream stream = {};
  ::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
  Bytes out(::deflateBound(&stream, plain.size()));
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

Bytes compress(const Bytes& plain, qcow2::CompressionType type) {
  if (type == qcow2::CompressionType::zlib)
    return deflate(plain);
  Bytes out(ZSTD_compressBound(plain.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 1));
  return out;
}

}  // namespace

Bytes SparseBytes::flat() const {
  Bytes bytes(size);
  for (const auto& [offset, piece] : pieces)
    std::copy(piece.begin(), piece.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
  return bytes;
}

void SparseBytes::write_to(const std::string& path) const {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  for (const auto& [offset, piece] : pieces) {
    out.seekp(static_cast<std::streamoff>(offset));
    out.write(reinterpret_cast<const char*>(piece.data()),
              static_cast<std::streamsize>(piece.size()));
  }
  out.close();
  if (!out)
    throw std::runtime_error("cannot write " + path);
  std::filesystem::resize_file(path, size);
}

ImageBuilder::ImageBuilder(ImageOptions options) : options_(std::move(options)) {
  count(0, 1);
}

void ImageBuilder::count(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0)
    return;
  const std::uint64_t first = offset >> options_.cluster_bits;
  const std::uint64_t last = (offset + bytes - 1) >> options_.cluster_bits;
  for (std::uint64_t cluster = first; cluster <= last; ++cluster)
    ++refcounts_[cluster];
}

std::uint64_t ImageBuilder::allocate(std::uint64_t guest_cluster) {
  if (!options_.data_file.empty())
    return guest_cluster * cluster_size();
  std::uint64_t cluster = 0;
  if (!supply_.empty()) {
    cluster = supply_.back();
    supply_.pop_back();
  } else {
    cluster = next_cluster_++;
  }
  count(cluster * cluster_size(), 1);
  return cluster * cluster_size();
}

void ImageBuilder::fill_cluster(std::uint64_t offset, std::uint8_t fill) {
  SparseBytes& file = options_.data_file.empty() ? file_ : data_file_;
  file.pieces[offset] = Bytes(cluster_size(), std::byte{fill});
  file.size = std::max(file.size, offset + cluster_size());
}

ImageBuilder& ImageBuilder::data(std::uint64_t cluster, std::uint8_t fill) {
  data_hole(cluster);
  fill_cluster(entries_[cluster].descriptor & qcow2::offset_mask, fill);
  return *this;
}

ImageBuilder& ImageBuilder::data_hole(std::uint64_t cluster) {
  const std::uint64_t all_allocated = options_.extended_l2 ? 0xffff'ffffULL : 0;
  entries_[cluster] = {allocate(cluster) | qcow2::copied_flag, all_allocated};
  return *this;
}

ImageBuilder& ImageBuilder::zero(std::uint64_t cluster) {
  entries_[cluster] =
      options_.extended_l2 ? Entry{0, 0xffff'ffffULL << 32} : Entry{qcow2::zero_flag, 0};
  return *this;
}

ImageBuilder& ImageBuilder::zero_reserved(std::uint64_t cluster) {
  const std::uint64_t host = allocate(cluster) | qcow2::copied_flag;
  entries_[cluster] =
      options_.extended_l2 ? Entry{host, 0xffff'ffffULL << 32} : Entry{host | qcow2::zero_flag, 0};
  return *this;
}

ImageBuilder& ImageBuilder::subclusters(std::uint64_t cluster, std::uint32_t allocated,
                                        std::uint32_t zero, std::uint8_t fill, bool with_host) {
  Entry entry;
  entry.bitmap = std::uint64_t{zero} << 32 | allocated;
  if (with_host) {
    entry.descriptor = allocate(cluster) | qcow2::copied_flag;
    fill_cluster(entry.descriptor & qcow2::offset_mask, fill);
  }
  entries_[cluster] = entry;
  return *this;
}

ImageBuilder& ImageBuilder::compressed(std::uint64_t cluster, std::uint8_t fill) {
  const Bytes stream = compress(Bytes(cluster_size(), std::byte{fill}), options_.compression);
  // Streams follow each other without alignment as long as the cluster has room.
  const std::uint64_t used = compressed_at_ % cluster_size();
  if (used == 0 || used + stream.size() > cluster_size())
    compressed_at_ = next_cluster_++ * cluster_size();
  const std::uint64_t offset = compressed_at_;
  compressed_at_ += stream.size();
  const std::uint64_t sectors = (offset + stream.size() - 1) / 512 - offset / 512;
  const unsigned x = 62 - (options_.cluster_bits - 8);
  entries_[cluster] = {qcow2::compressed_flag | sectors << x | offset, 0};
  count(align_down(offset, 512), (sectors + 1) * 512);
  file_.pieces[offset] = stream;
  file_.size = std::max(file_.size, align_up(offset + stream.size(), cluster_size()));
  return *this;
}

ImageBuilder& ImageBuilder::raw_entry(std::uint64_t cluster, std::uint64_t entry,
                                      std::uint64_t bitmap) {
  entries_[cluster] = {entry, bitmap};
  return *this;
}

ImageBuilder& ImageBuilder::table(std::uint64_t l1_index) {
  empty_tables_.push_back(l1_index);
  return *this;
}

ImageBuilder& ImageBuilder::shuffle(std::uint64_t supply, std::uint64_t seed) {
  for (std::uint64_t i = 0; i < supply; ++i)
    supply_.push_back(next_cluster_++);
  std::mt19937_64 random(seed);
  std::shuffle(supply_.begin(), supply_.end(), random);
  return *this;
}

ImageBuilder& ImageBuilder::snapshot(const std::string& id, const std::string& name) {
  qcow2::Snapshot snapshot;
  snapshot.id = id;
  snapshot.name = name;
  snapshot.date_sec = 1'700'000'000;
  append(snapshot.extra_data, be64(0));
  append(snapshot.extra_data, be64(options_.size));
  for (const auto& [cluster, entry] : entries_) {
    if ((entry.descriptor & qcow2::compressed_flag) == 0 &&
        (entry.descriptor & qcow2::offset_mask) != 0)
      count(entry.descriptor & qcow2::offset_mask, 1);
  }
  snapshots_.emplace_back(std::move(snapshot), entries_);
  for (auto& [cluster, entry] : entries_)
    entry.descriptor &= ~qcow2::copied_flag;
  return *this;
}

ImageBuilder& ImageBuilder::bitmap(const std::string& name, std::uint32_t flags) {
  qcow2::Bitmap bitmap;
  bitmap.name = name;
  bitmap.flags = flags;
  bitmaps_.push_back(bitmap);
  return *this;
}

ImageBuilder& ImageBuilder::extension(std::uint32_t type, const Bytes& data) {
  extensions_.push_back({type, data, Bytes(align_up(data.size(), 8) - data.size())});
  return *this;
}

ImageBuilder& ImageBuilder::patch_header(std::function<void(qcow2::Header&)> patch) {
  patches_.push_back(std::move(patch));
  return *this;
}

SparseBytes ImageBuilder::build() const {
  // Work on a copy: building twice gives the same image.
  ImageBuilder work = *this;
  const std::uint64_t size = cluster_size();
  const auto take = [&](std::uint64_t bytes) {
    const std::uint64_t offset = work.next_cluster_ * size;
    work.next_cluster_ += std::max<std::uint64_t>(1, divide_up(bytes, size));
    work.count(offset, bytes);
    return offset;
  };
  const auto put = [&](std::uint64_t offset, Bytes bytes) {
    work.file_.size = std::max(work.file_.size, offset + align_up(bytes.size(), size));
    work.file_.pieces[offset] = std::move(bytes);
  };

  qcow2::Header header;
  header.version = options_.version;
  header.cluster_bits = options_.cluster_bits;
  header.refcount_order = options_.refcount_order;
  header.size = options_.size;
  header.header_length = options_.version >= 3 ? 104 : 72;
  const auto incompatible = [&](bool has, std::uint64_t bit) {
    header.incompatible_features |= has ? bit : 0;
  };
  incompatible(options_.extended_l2, qcow2::incompatible::extended_l2);
  incompatible(!options_.data_file.empty(), qcow2::incompatible::external_data_file);
  const bool zstd = options_.compression == qcow2::CompressionType::zstd;
  incompatible(zstd, qcow2::incompatible::compression_type);
  if (zstd) {
    header.header_length = 112;
    header.additional_fields = Bytes(8);
    header.additional_fields[0] = std::byte{1};
  }
  if (options_.data_file_raw)
    header.autoclear_features |= qcow2::autoclear::raw_external_data;

  const qcow2::Geometry geometry(header);
  const std::uint64_t l1_size = divide_up(options_.size, geometry.l2_coverage());
  const auto write_tables = [&](const Entries& entries, const std::vector<std::uint64_t>& empty) {
    std::map<std::uint64_t, Bytes> tables;
    const auto table_of = [&](std::uint64_t l1_index) -> Bytes& {
      return tables.try_emplace(l1_index, Bytes(size)).first->second;
    };
    for (const std::uint64_t l1_index : empty)
      table_of(l1_index);
    for (const auto& [cluster, entry] : entries) {
      Bytes& table = table_of(cluster / geometry.l2_entries());
      const std::size_t at = cluster % geometry.l2_entries() * geometry.l2_entry_bytes();
      const be64 descriptor(entry.descriptor);
      std::copy_n(bytes_of(descriptor).begin(), 8, table.begin() + static_cast<std::ptrdiff_t>(at));
      if (options_.extended_l2) {
        const be64 bitmap(entry.bitmap);
        std::copy_n(bytes_of(bitmap).begin(), 8,
                    table.begin() + static_cast<std::ptrdiff_t>(at + 8));
      }
    }
    std::vector<be64> l1(std::max<std::uint64_t>(1, l1_size));
    for (auto& [l1_index, table] : tables) {
      const std::uint64_t offset = take(size);
      put(offset, std::move(table));
      l1[l1_index] = offset | qcow2::copied_flag;
    }
    const std::uint64_t l1_offset = take(l1.size() * 8);
    const ByteView l1_bytes = std::as_bytes(std::span(l1));
    put(l1_offset, Bytes(l1_bytes.begin(), l1_bytes.end()));
    return l1_offset;
  };

  header.l1_size = static_cast<std::uint32_t>(l1_size);
  header.l1_table_offset = write_tables(work.entries_, work.empty_tables_);
  std::vector<qcow2::Snapshot> snapshots;
  for (auto& [snapshot, entries] : work.snapshots_) {
    snapshot.l1_size = header.l1_size;
    snapshot.l1_table_offset = write_tables(entries, {});
    snapshots.push_back(snapshot);
  }
  if (!snapshots.empty()) {
    Bytes table = qcow2::encode_snapshots(snapshots);
    header.nb_snapshots = static_cast<std::uint32_t>(snapshots.size());
    header.snapshots_offset = take(table.size());
    put(header.snapshots_offset, std::move(table));
  }
  if (!options_.backing_format.empty()) {
    const ByteView name = text_bytes(options_.backing_format);
    header.extensions.push_back({qcow2::extension::backing_file_format,
                                 Bytes(name.begin(), name.end()),
                                 Bytes(align_up(name.size(), 8) - name.size())});
  }
  if (!options_.data_file.empty()) {
    const ByteView name = text_bytes(options_.data_file);
    header.extensions.push_back({qcow2::extension::external_data_file_name,
                                 Bytes(name.begin(), name.end()),
                                 Bytes(align_up(name.size(), 8) - name.size())});
  }
  if (!work.bitmaps_.empty()) {
    for (qcow2::Bitmap& bitmap : work.bitmaps_) {
      bitmap.bitmap_table_size =
          static_cast<std::uint32_t>(divide_up(options_.size, bitmap.granularity() * 8 * size));
      bitmap.bitmap_table_offset = take(bitmap.bitmap_table_size * 8);
      put(bitmap.bitmap_table_offset, Bytes(bitmap.bitmap_table_size * std::size_t{8}));
    }
    Bytes directory = qcow2::encode_bitmap_directory(work.bitmaps_);
    qcow2::wire::BitmapsExtension fields;
    fields.nb_bitmaps = static_cast<std::uint32_t>(work.bitmaps_.size());
    fields.bitmap_directory_size = directory.size();
    const std::uint64_t offset = take(directory.size());
    fields.bitmap_directory_offset = offset;
    put(offset, std::move(directory));
    const ByteView bytes = bytes_of(fields);
    header.extensions.push_back({qcow2::extension::bitmaps, Bytes(bytes.begin(), bytes.end()), {}});
    header.autoclear_features |= qcow2::autoclear::bitmaps;
  }
  header.extensions.insert(header.extensions.end(), work.extensions_.begin(),
                           work.extensions_.end());
  header.has_end_mark = true;

  // Refcount blocks describe themselves and their table: count until nothing is added any more.
  const std::uint64_t per_block = (size * 8) >> options_.refcount_order;
  std::map<std::uint64_t, std::uint64_t> blocks;  // table index -> offset
  std::uint64_t table_clusters = 1;
  const std::uint64_t table_offset = [&] {
    const std::uint64_t spare = divide_up(work.next_cluster_, per_block) + 2;
    table_clusters = divide_up((work.next_cluster_ + spare * 2) / per_block + 2, size / 8);
    return take(table_clusters * size);
  }();
  for (std::size_t before = ~std::size_t{0}; before != blocks.size();) {
    before = blocks.size();
    const auto counted = work.refcounts_;
    for (const auto& [cluster, refcount] : counted) {
      if (!blocks.contains(cluster / per_block))
        blocks[cluster / per_block] = take(size);
    }
    // Blocks just added may need blocks themselves.
    bool complete = true;
    for (const auto& [cluster, refcount] : work.refcounts_)
      complete = complete && blocks.contains(cluster / per_block);
    if (!complete)
      before = ~std::size_t{0};
  }
  std::vector<be64> refcount_table(table_clusters * size / 8);
  std::map<std::uint64_t, Bytes> block_bytes;
  for (const auto& [index, offset] : blocks) {
    refcount_table.at(index) = offset;
    block_bytes[index] = Bytes(size);
  }
  for (const auto& [cluster, refcount] : work.refcounts_)
    qcow2::set_refcount_at(block_bytes[cluster / per_block], options_.refcount_order,
                           cluster % per_block, refcount);
  for (auto& [index, bytes] : block_bytes)
    put(blocks[index], std::move(bytes));
  const ByteView table_bytes = std::as_bytes(std::span(refcount_table));
  put(table_offset, Bytes(table_bytes.begin(), table_bytes.end()));
  header.refcount_table_offset = table_offset;
  header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);

  if (!options_.backing_file.empty()) {
    header.backing_file = options_.backing_file;
    header.backing_file_size = static_cast<std::uint32_t>(options_.backing_file.size());
    header.backing_file_offset = qcow2::encode_header([&] {
                                   qcow2::Header without = header;
                                   without.backing_file.reset();
                                   return without;
                                 }())
                                     .size();
  }
  for (const auto& patch : work.patches_)
    patch(header);
  put(0, qcow2::encode_header(header));
  work.file_.size = std::max(work.file_.size, work.next_cluster_ * size);
  return work.file_;
}

}  // namespace coldchain::testing
