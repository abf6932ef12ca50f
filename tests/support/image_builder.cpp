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

Bytes copied(const std::vector<be64>& table) {
  const ByteView bytes = std::as_bytes(std::span(table));
  return {bytes.begin(), bytes.end()};
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
    const qcow2::L2Entry descriptor(entry.descriptor);
    if (descriptor.is_compressed()) {
      const auto extent = descriptor.compressed_extent(options_.cluster_bits);
      count(align_down(extent.begin.value, 512),
            extent.max_bytes + (extent.begin.value - align_down(extent.begin.value, 512)));
    } else if (descriptor.host_offset().value != 0) {
      count(descriptor.host_offset().value, 1);
    }
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
  ImageBuilder work = *this;  // building twice gives the same image
  return work.finish();
}

SparseBytes ImageBuilder::finish() {
  qcow2::Header header = fixed_header();
  header.l1_table_offset = write_tables(header, entries_, empty_tables_);
  write_snapshots(header);
  add_text_extension(header, qcow2::extension::backing_file_format, options_.backing_format);
  add_text_extension(header, qcow2::extension::external_data_file_name, options_.data_file);
  write_bitmaps(header);
  header.extensions.insert(header.extensions.end(), extensions_.begin(), extensions_.end());
  header.has_end_mark = true;
  write_refcounts(header);
  if (!options_.backing_file.empty()) {
    header.backing_file_offset = qcow2::encode_header(header).size();
    header.backing_file_size = static_cast<std::uint32_t>(options_.backing_file.size());
    header.backing_file_bytes = options_.backing_file;
  }
  for (const auto& patch : patches_)
    patch(header);
  put(0, qcow2::encode_header(header));
  file_.size = std::max(file_.size, next_cluster_ * cluster_size());
  return file_;
}

// Clusters for metadata, counted.
std::uint64_t ImageBuilder::take(std::uint64_t bytes) {
  const std::uint64_t offset = next_cluster_ * cluster_size();
  next_cluster_ += std::max<std::uint64_t>(1, divide_up(bytes, cluster_size()));
  count(offset, bytes);
  return offset;
}

void ImageBuilder::put(std::uint64_t offset, Bytes bytes) {
  file_.size = std::max(file_.size, offset + align_up(bytes.size(), cluster_size()));
  file_.pieces[offset] = std::move(bytes);
}

qcow2::Header ImageBuilder::fixed_header() const {
  qcow2::Header header;
  header.version = options_.version;
  header.cluster_bits = options_.cluster_bits;
  header.refcount_order = options_.refcount_order;
  header.size = options_.size;
  header.header_length = options_.version >= 3 ? 104 : 72;
  if (options_.extended_l2)
    header.incompatible_features |= qcow2::incompatible::extended_l2;
  if (!options_.data_file.empty())
    header.incompatible_features |= qcow2::incompatible::external_data_file;
  if (options_.data_file_raw)
    header.autoclear_features |= qcow2::autoclear::raw_external_data;
  if (options_.compression == qcow2::CompressionType::zstd) {
    header.incompatible_features |= qcow2::incompatible::compression_type;
    header.header_length = 112;
    header.additional_fields = Bytes(8);
    header.additional_fields[0] = std::byte{1};
  }
  header.l1_size =
      static_cast<std::uint32_t>(divide_up(options_.size, qcow2::Geometry(header).l2_coverage()));
  return header;
}

// Writes the L2 tables that the entries need, and an L1 table; returns where that is.
std::uint64_t ImageBuilder::write_tables(const qcow2::Header& header, const Entries& entries,
                                         const std::vector<std::uint64_t>& empty_tables) {
  const qcow2::Geometry geometry(header);
  std::map<std::uint64_t, std::vector<be64>> tables;  // by L1 index
  const auto table_of = [&](std::uint64_t l1_index) -> std::vector<be64>& {
    return tables.try_emplace(l1_index, cluster_size() / sizeof(be64)).first->second;
  };
  for (const std::uint64_t l1_index : empty_tables)
    table_of(l1_index);
  const std::size_t words = geometry.l2_entry_bytes() / sizeof(be64);
  for (const auto& [cluster, entry] : entries) {
    std::vector<be64>& table = table_of(cluster / geometry.l2_entries());
    const std::size_t at = cluster % geometry.l2_entries() * words;
    table[at] = entry.descriptor;
    if (words > 1)
      table[at + 1] = entry.bitmap;
  }
  std::vector<be64> l1(std::max<std::size_t>(1, header.l1_size));
  for (const auto& [l1_index, table] : tables) {
    const std::uint64_t offset = take(cluster_size());
    put(offset, copied(table));
    l1[l1_index] = offset | qcow2::copied_flag;
  }
  const std::uint64_t offset = take(l1.size() * sizeof(be64));
  put(offset, copied(l1));
  return offset;
}

void ImageBuilder::write_snapshots(qcow2::Header& header) {
  if (snapshots_.empty())
    return;
  std::vector<qcow2::Snapshot> table;
  for (auto& [snapshot, entries] : snapshots_) {
    snapshot.l1_size = header.l1_size;
    snapshot.l1_table_offset = write_tables(header, entries, {});
    table.push_back(snapshot);
  }
  Bytes bytes = qcow2::encode_snapshots(table);
  header.nb_snapshots = static_cast<std::uint32_t>(table.size());
  header.snapshots_offset = take(bytes.size());
  put(header.snapshots_offset, std::move(bytes));
}

void ImageBuilder::add_text_extension(qcow2::Header& header, std::uint32_t type,
                                      const std::string& text) {
  if (text.empty())
    return;
  const ByteView bytes = text_bytes(text);
  header.extensions.push_back(
      {type, Bytes(bytes.begin(), bytes.end()), Bytes(align_up(bytes.size(), 8) - bytes.size())});
}

void ImageBuilder::write_bitmaps(qcow2::Header& header) {
  if (bitmaps_.empty())
    return;
  for (qcow2::Bitmap& bitmap : bitmaps_) {
    bitmap.bitmap_table_size = static_cast<std::uint32_t>(
        divide_up(options_.size, bitmap.granularity() * 8 * cluster_size()));
    const std::size_t bytes = bitmap.bitmap_table_size * sizeof(be64);
    bitmap.bitmap_table_offset = take(bytes);
    put(bitmap.bitmap_table_offset, Bytes(bytes));
  }
  Bytes directory = qcow2::encode_bitmap_directory(bitmaps_);
  const std::uint64_t offset = take(directory.size());
  qcow2::wire::BitmapsExtension fields;
  fields.nb_bitmaps = static_cast<std::uint32_t>(bitmaps_.size());
  fields.bitmap_directory_size = directory.size();
  fields.bitmap_directory_offset = offset;
  put(offset, std::move(directory));
  const ByteView bytes = bytes_of(fields);
  header.extensions.push_back({qcow2::extension::bitmaps, Bytes(bytes.begin(), bytes.end()), {}});
  header.autoclear_features |= qcow2::autoclear::bitmaps;
}

// Last of all: what is counted does not change any more, but for the blocks and the table
// themselves.
void ImageBuilder::write_refcounts(qcow2::Header& header) {
  const std::uint64_t per_block = (cluster_size() * 8) >> options_.refcount_order;
  // Room for every block that can become necessary, those for the blocks included.
  const std::uint64_t most_blocks = 2 * (next_cluster_ / per_block + 2);
  header.refcount_table_clusters =
      static_cast<std::uint32_t>(divide_up(most_blocks * sizeof(be64), cluster_size()));
  header.refcount_table_offset = take(header.refcount_table_clusters * cluster_size());

  std::map<std::uint64_t, std::uint64_t> blocks;  // table index -> offset
  for (bool complete = false; !complete;) {
    complete = true;
    const auto counted = refcounts_;
    for (const auto& [cluster, refcount] : counted) {
      if (blocks.contains(cluster / per_block))
        continue;
      blocks[cluster / per_block] = take(cluster_size());
      complete = false;  // the new block has to be counted too
    }
  }
  std::vector<be64> table(header.refcount_table_clusters * cluster_size() / sizeof(be64));
  std::map<std::uint64_t, Bytes> contents;
  for (const auto& [index, offset] : blocks) {
    table.at(index) = offset;
    contents[index] = Bytes(cluster_size());
  }
  for (const auto& [cluster, refcount] : refcounts_)
    qcow2::set_refcount_at(contents[cluster / per_block], options_.refcount_order,
                           cluster % per_block, refcount);
  for (auto& [index, bytes] : contents)
    put(blocks[index], std::move(bytes));
  put(header.refcount_table_offset, copied(table));
}

}  // namespace coldchain::testing
