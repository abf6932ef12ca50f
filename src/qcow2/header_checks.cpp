// SPDX-License-Identifier: MIT
#include "header_checks.hpp"

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

constexpr std::uint64_t snapshot_header_bytes = sizeof(wire::Snapshot);
constexpr std::uint64_t max_l1_index = (1ULL << 31) - 1;

Result<void> check_compression_type(const Header& header) {
  const std::uint8_t type = header.compression_type();
  if (type > static_cast<std::uint8_t>(CompressionType::zstd))
    return fail(ErrorCode::unsupported,
                fmt::format("qcow2: unknown compression type: {}: compression_type at 0x68", type));
  if (header.has_incompatible(incompatible::compression_type) != (type != 0))
    return fail(ErrorCode::corrupt,
                fmt::format("qcow2: Compression type incompatible feature bit must {}be set: "
                            "incompatible_features at 0x48 is {:#x}, compression_type is {}",
                            type != 0 ? "" : "not ", header.incompatible_features, type));
  return {};
}

Result<void> check_widths(const Header& header) {
  const std::uint64_t subcluster_size = Geometry(header).subcluster_size();
  if (subcluster_size < (1ULL << limits::min_cluster_bits))
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported subcluster size: {}: extended L2 entries need "
                            "cluster_bits of at least 14, not {}",
                            subcluster_size, header.cluster_bits));
  return check_refcount_order(header);
}

// The reads of QEMU's block layer end below this offset. It gets the same error for both tables.
Result<void> check_can_be_read(const TablePlace& place, const char* words) {
  if (place.bytes != 0 && place.offset + place.bytes > limits::max_file_bytes)
    return fail(ErrorCode::corrupt, fmt::format("{}: Input/output error: {} is {:#x}, past the end "
                                                "of every file",
                                                words, place.field, place.offset));
  return {};
}

Result<void> check_l1_entries(const Header& header) {
  const std::uint64_t coverage = Geometry(header).l2_coverage();
  // QEMU's sum wraps around for a disk of almost 2^64 bytes; check_disk_size() refuses that.
  const std::uint64_t needed = (header.size + coverage - 1) / coverage;
  if (needed > max_l1_index)
    return fail(ErrorCode::too_large,
                fmt::format("Image is too big: size at 0x18 is {}, which needs {} L1 entries",
                            header.size, needed));
  if (header.l1_size < needed)
    return fail(ErrorCode::corrupt,
                fmt::format("L1 table is too small: l1_size at 0x24 is {}, but a disk of {} "
                            "bytes needs {} entries",
                            header.l1_size, header.size, needed));
  return {};
}

Result<void> check_snapshot_place(const Header& header) {
  return check_table(header, {.table = "Snapshot table",
                              .field = "snapshots_offset at 0x40",
                              .offset = header.snapshots_offset,
                              .bytes = header.nb_snapshots * snapshot_header_bytes,
                              .max_bytes = limits::max_snapshots * snapshot_header_bytes});
}

}  // namespace

Result<void> check_table(const Header& header, const TablePlace& place) {
  if (place.bytes > place.max_bytes)
    return fail(ErrorCode::too_large, fmt::format("{} too large: {} bytes, at most {}", place.table,
                                                  place.bytes, place.max_bytes));
  const auto end = checked_add(place.offset, place.bytes);
  if (!is_aligned(place.offset, header.cluster_size()) || !end || *end >= (1ULL << 63))
    return fail(ErrorCode::corrupt, fmt::format("{} offset invalid: {} is {:#x}{}", place.table,
                                                place.field, place.offset,
                                                is_aligned(place.offset, header.cluster_size())
                                                    ? ", past the end of every file"
                                                    : ", not aligned to a cluster"));
  return {};
}

Result<void> check_refcount_order(const Header& header) {
  if (header.refcount_order > limits::max_refcount_order)
    return fail(ErrorCode::unsupported,
                fmt::format("Reference count entry width too large; may not exceed 64 bits: "
                            "refcount_order at 0x60 is {}, at most {} is allowed",
                            header.refcount_order, limits::max_refcount_order));
  return {};
}

Result<void> check_fields(const Header& header, HeaderRules rules) {
  TRY(check_compression_type(header));
  if (header.unknown_incompatible() != 0)
    return {};  // what else is in there may mean something new: describe it, judge nothing
  TRY(check_widths(header));
  if (rules == HeaderRules::for_use && header.refcount_table_clusters == 0)
    return fail(ErrorCode::corrupt,
                "Image does not contain a reference count table: refcount_table_clusters at "
                "0x38 is 0");
  const TablePlace refcounts{.table = "Reference count table",
                             .field = "refcount_table_offset at 0x30",
                             .offset = header.refcount_table_offset,
                             .bytes = header.refcount_table_clusters * header.cluster_size(),
                             .max_bytes = limits::max_refcount_table_bytes};
  TRY(check_table(header, refcounts));
  if (rules == HeaderRules::for_use)
    TRY(check_snapshot_place(header));
  const TablePlace l1{.table = "Active L1 table",
                      .field = "l1_table_offset at 0x28",
                      .offset = header.l1_table_offset,
                      .bytes = header.l1_size * sizeof(be64),
                      .max_bytes = limits::max_l1_bytes};
  TRY(check_table(header, l1));
  TRY(check_l1_entries(header));
  TRY(check_can_be_read(l1, "Could not read L1 table"));
  if (header.crypt_method > static_cast<std::uint32_t>(CryptMethod::luks))
    return fail(ErrorCode::unsupported,
                fmt::format("Unsupported encryption method {}: crypt_method at 0x20",
                            static_cast<std::int32_t>(header.crypt_method)));
  return check_can_be_read(refcounts, "Could not initialize refcount handling");
}

Result<void> check_data_file_bit(const Header& header) {
  if (header.data_file_is_raw() && !header.has_data_file())
    return fail(ErrorCode::corrupt,
                fmt::format("data-file-raw requires a data file: autoclear_features at 0x58 "
                            "is {:#x}, incompatible_features is {:#x}",
                            header.autoclear_features, header.incompatible_features));
  return {};
}

Result<void> check_disk_size(const Header& header) {
  if (header.size / 512 * 512 > limits::max_file_bytes)
    return fail(ErrorCode::too_large,
                fmt::format("Could not refresh total sector count: File too large: size at "
                            "0x18 is {}, at most {} is allowed",
                            header.size, limits::max_file_bytes));
  return {};
}

}  // namespace coldchain::qcow2
