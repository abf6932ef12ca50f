// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/codec/codec.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/image.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

// A table must fit below 2^63 and lie on a cluster boundary, even if it is empty.
Result<void> check_table(const Header& header, std::uint64_t offset, std::uint64_t bytes,
                         std::uint64_t max_bytes, const char* what) {
  if (bytes > max_bytes)
    return fail(ErrorCode::too_large,
                fmt::format("{} too large ({} bytes, at most {})", what, bytes, max_bytes));
  const auto end = checked_add(offset, bytes);
  if (!is_aligned(offset, header.cluster_size()) || !end || *end >= (1ULL << 63))
    return fail(ErrorCode::corrupt, fmt::format("{} offset invalid ({:#x})", what, offset));
  return {};
}

Result<void> check_compression_type(const Header& header) {
  const std::uint8_t type = header.compression_type();
  if (type > static_cast<std::uint8_t>(CompressionType::zstd))
    return fail(ErrorCode::unsupported, fmt::format("qcow2: unknown compression type: {}", type));
  if (header.has_incompatible(incompatible::compression_type) != (type != 0))
    return fail(ErrorCode::corrupt,
                fmt::format("qcow2: compression_type is {}, but the incompatible feature bit is {}",
                            type, type != 0 ? "clear" : "set"));
  return {};
}

// QEMU opens an image for a check even where these tables are missing or misplaced.
Result<void> check_refcounts_and_snapshots(const Header& header) {
  if (header.refcount_table_clusters == 0)
    return fail(ErrorCode::corrupt, "Image does not contain a reference count table");
  return check_table(header, header.snapshots_offset, std::uint64_t{header.nb_snapshots} * 40,
                     std::uint64_t{limits::max_snapshots} * 40, "Snapshot table");
}

Result<void> check_header(const Header& header, bool is_damaged) {
  if (header.unknown_incompatible() != 0)
    return {};  // what else is in there may mean something new: describe it, judge nothing
  TRY(check_compression_type(header));
  const Geometry geometry(header);
  if (geometry.subcluster_size() < 512)
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported subcluster size: {}", geometry.subcluster_size()));
  if (!is_damaged) {
    TRY(check_refcounts_and_snapshots(header));
    TRY(check_extensions(header));
  }
  TRY(check_table(header, header.refcount_table_offset,
                  header.refcount_table_clusters * header.cluster_size(),
                  limits::max_refcount_table_bytes, "Reference count table"));
  TRY(check_table(header, header.l1_table_offset, std::uint64_t{header.l1_size} * sizeof(be64),
                  limits::max_l1_bytes, "Active L1 table"));
  if (divide_up(header.size, geometry.l2_coverage()) > header.l1_size)
    return fail(ErrorCode::corrupt, fmt::format("L1 table is too small ({} entries for {} bytes)",
                                                header.l1_size, header.size));
  if (header.crypt_method > static_cast<std::uint32_t>(CryptMethod::luks))
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported encryption method {}", header.crypt_method));
  if (header.data_file_is_raw() && !header.has_data_file())
    return fail(ErrorCode::corrupt, "data-file-raw requires a data file");
  return {};
}

}  // namespace

Result<Image> Image::open(const io::File& file) {
  return open(file, false);
}

Result<Image> Image::open_damaged(const io::File& file) {
  return open(file, true);
}

Result<Image> Image::open(const io::File& file, bool is_damaged) {
  Header header = TRY(read_header(file));
  TRY(check_header(header, is_damaged));
  Image image(file, std::move(header));
  if (!image.header_.has_data_file())
    image.data_file_ = &file;
  return image;
}

Result<Mapping> Image::active_mapping() const {
  return mapping(header_.l1_table_offset, header_.l1_size, guest_size(), "Active L1 table");
}

Result<Mapping> Image::snapshot_mapping(const Snapshot& snapshot) const {
  TRY(check_table(header_, snapshot.l1_table_offset, std::uint64_t{snapshot.l1_size} * sizeof(be64),
                  limits::max_l1_bytes, "Snapshot L1 table"));
  const std::uint64_t size = snapshot.disk_size().value_or(header_.size) / 512 * 512;
  return mapping(snapshot.l1_table_offset, snapshot.l1_size, size, "Snapshot L1 table");
}

Result<Mapping> Image::mapping(std::uint64_t l1_table_offset, std::uint32_t l1_size,
                               std::uint64_t guest_size, const char* what) const {
  if (header_.unknown_incompatible() != 0)
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported qcow2 feature(s): {}",
                            fmt::join(header_.unknown_incompatible_names(), ", ")));
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
