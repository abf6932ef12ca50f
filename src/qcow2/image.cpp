// SPDX-License-Identifier: MIT
#include "header_checks.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/codec/codec.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/image.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

Result<Image> Image::open(const io::File& file) {
  return open(file, false);
}

Result<Image> Image::open_damaged(const io::File& file) {
  return open(file, true);
}

Result<Image> Image::open(const io::File& file, bool is_damaged) {
  Image image(file,
              TRY(read_header(file, is_damaged ? HeaderRules::for_check : HeaderRules::for_use)));
  if (!image.header_.has_data_file())
    image.data_file_ = &file;
  return image;
}

Result<Mapping> Image::active_mapping() const {
  return mapping(header_.l1_table_offset, header_.l1_size, guest_size(), "Active L1 table");
}

Result<Mapping> Image::snapshot_mapping(const Snapshot& snapshot) const {
  TRY(check_table(header_, {.table = "Snapshot L1 table",
                            .field = "l1_table_offset of the snapshot",
                            .offset = snapshot.l1_table_offset,
                            .bytes = snapshot.l1_size * sizeof(be64),
                            .max_bytes = limits::max_l1_bytes}));
  const std::uint64_t size = snapshot.disk_size().value_or(header_.size) / 512 * 512;
  return mapping(snapshot.l1_table_offset, snapshot.l1_size, size, "Snapshot L1 table");
}

Result<Mapping> Image::mapping(std::uint64_t l1_table_offset, std::uint32_t l1_size,
                               std::uint64_t guest_size, const char* what) const {
  if (header_.unknown_incompatible() != 0)
    return fail(ErrorCode::unsupported, unsupported_features(header_));
  const Geometry geometry(header_);
  // Entries past the guest's disk describe saved machine state, which is not mapped.
  const std::uint64_t needed = divide_up(guest_size, geometry.l2_coverage());
  std::vector<be64> l1(std::min<std::uint64_t>(needed, l1_size));
  const HostRange table{{l1_table_offset}, {l1_table_offset + l1.size() * sizeof(be64)}};
  const HostOffset end_of_file{file_->size()};
  if (table.end.value >= align_up(end_of_file.value, 512) + header_.cluster_size())
    return fail(ErrorCode::corrupt,
                fmt::format("{} at {:#x} ({} bytes) is past the end of the file ({} bytes)", what,
                            l1_table_offset, table.size(), end_of_file.value));
  std::vector<HostRange> lost =
      io::read_table_parts(*file_, table.begin, writable_bytes_of(l1)).ranges;
  if (table.end > end_of_file)
    lost.push_back({std::max(table.begin, end_of_file), table.end});
  for (const HostRange& range : lost) {
    const std::uint64_t first = (range.begin - table.begin) / sizeof(be64);
    const std::uint64_t end = divide_up(range.end - table.begin, sizeof(be64));
    std::fill_n(l1.begin() + static_cast<std::ptrdiff_t>(first), end - first,
                be64(unread_l1_entry));
  }
  // An L1 table may be far larger than what it describes; its empty end needs no memory.
  const auto last = std::find_if(l1.rbegin(), l1.rend(),
                                 [](const be64& raw) { return L1Entry(raw.get()).has_l2_table(); });
  l1.erase(last.base(), l1.end());
  l1.shrink_to_fit();
  std::vector<std::uint64_t> tables;
  for (const be64& raw : l1) {
    if (L1Entry(raw.get()).has_l2_table() && raw.get() != unread_l1_entry)
      tables.push_back(L1Entry(raw.get()).l2_table().value);
  }
  if (const std::size_t count = tables.size(); repeats_itself(std::move(tables)))
    return fail(ErrorCode::corrupt,
                fmt::format("{} names the same few L2 tables in {} entries", what, count));
  const MappingRules rules{.geometry = geometry,
                           .allows_zero_flag = header_.version >= 3,
                           .has_data_file = header_.has_data_file(),
                           .data_end = data_file_ != nullptr ? data_file_->size() : ~0ULL,
                           .stream_end = file_->size()};
  return Mapping(*file_, rules, std::move(l1), guest_size);
}

bool Image::has_preallocated_metadata() const {
  const io::FileStatus& status = file_->status();
  const std::uint64_t real =
      (status.kind == io::FileKind::block_device ? status.size : status.allocated) /
      header_.cluster_size();
  const std::uint64_t threshold = std::max(real * 10 / 9, real + 2);
  const std::uint64_t clusters = divide_up(align_up(status.size, 512), header_.cluster_size());
  const Result<Refcounts> refcounts = Refcounts::open(*file_, header_);
  if (!refcounts || clusters < threshold)
    return false;
  const Result<std::uint64_t> used = refcounts->count_used(clusters, threshold);
  return used && *used >= threshold;
}

Result<void> Image::check_readable() const {
  if (header_.crypt_method != 0)
    return fail(ErrorCode::unsupported,
                fmt::format("guest data is encrypted ({}); only metadata can be read",
                            header_.crypt_method == 1 ? "AES" : "LUKS"));
  if (data_file_ == nullptr)
    return fail(ErrorCode::not_found, "guest data is in an external data file that was not opened");
  return {};
}

Result<void> Image::decompress(const CompressedExtent& extent, Bytes& stream,
                               ByteSpan cluster) const {
  stream.resize(extent.max_bytes);
  stream.resize(TRY(file_->read_at(extent.begin, stream)));
  return (is_zstd() ? codec::unzstd : codec::inflate)(stream, cluster);
}

Result<std::size_t> Image::compress(ByteView cluster, ByteSpan stream) const {
  return (is_zstd() ? codec::zstd : codec::deflate)(cluster, stream);
}

bool Image::is_zstd() const {
  return header_.compression_type() == static_cast<std::uint8_t>(CompressionType::zstd);
}

Result<void> Image::read(const Location& location, GuestOffset offset, ByteSpan buffer,
                         Unpacked& unpacked) const {
  const bool is_compressed = location.kind == RunKind::compressed;
  if (is_lost(location.unreadable))
    return fail(ErrorCode::corrupt,
                fmt::format("guest offset {:#x} cannot be read: its host cluster at {:#x} is past "
                            "the end of the file",
                            offset.value,
                            (is_compressed ? location.compressed.begin : location.host).value));
  if (!is_compressed)
    return io::read_exactly(*data_file_, location.host, buffer, "guest data");
  const CompressedExtent& extent = location.compressed;
  const bool is_there = unpacked.image == this && unpacked.extent.begin == extent.begin &&
                        unpacked.extent.max_bytes == extent.max_bytes;
  if (!is_there) {
    unpacked.image = nullptr;
    unpacked.cluster.resize(header_.cluster_size());
    if (const Result<void> done = decompress(extent, unpacked.stream, unpacked.cluster); !done)
      return fail(with_context(done.error(),
                               fmt::format("compressed cluster at {:#x} (guest offset {:#x})",
                                           extent.begin.value, location.cluster_begin.value)));
    unpacked.image = this;
    unpacked.extent = extent;
  }
  const auto begin =
      unpacked.cluster.begin() + static_cast<std::ptrdiff_t>(offset - location.cluster_begin);
  std::copy_n(begin, buffer.size(), buffer.begin());
  return {};
}

}  // namespace coldchain::qcow2
