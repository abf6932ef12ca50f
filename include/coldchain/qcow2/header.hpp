// SPDX-License-Identifier: MIT
// The header of a qcow2 image with its extensions: decoded from the first cluster, and encoded back
// to the same bytes. qcow2.rst, "Header", "Additional fields", "Header extensions".
// Decoding rejects only what makes the rest unreadable or exceeds QEMU's limits; it does not follow
// any offset out of the first cluster.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::qcow2 {

constexpr std::uint32_t magic = 0x514649fb;  // "QFI\xfb"

namespace incompatible {
constexpr std::uint64_t dirty = 1ULL << 0;
constexpr std::uint64_t corrupt = 1ULL << 1;
constexpr std::uint64_t external_data_file = 1ULL << 2;
constexpr std::uint64_t compression_type = 1ULL << 3;
constexpr std::uint64_t extended_l2 = 1ULL << 4;
constexpr std::uint64_t known =
    dirty | corrupt | external_data_file | compression_type | extended_l2;
}  // namespace incompatible

namespace compatible {
constexpr std::uint64_t lazy_refcounts = 1ULL << 0;
}

namespace autoclear {
constexpr std::uint64_t bitmaps = 1ULL << 0;
constexpr std::uint64_t raw_external_data = 1ULL << 1;
}  // namespace autoclear

enum class CryptMethod : std::uint32_t { none = 0, aes = 1, luks = 2 };
enum class CompressionType : std::uint8_t { zlib = 0, zstd = 1 };

namespace extension {
constexpr std::uint32_t end = 0;
constexpr std::uint32_t backing_file_format = 0xe2792aca;
constexpr std::uint32_t feature_name_table = 0x6803f857;
constexpr std::uint32_t bitmaps = 0x23852875;
constexpr std::uint32_t encryption_header = 0x0537be77;
constexpr std::uint32_t external_data_file_name = 0x44415441;
}  // namespace extension

// One header extension as it lies in the file, known or not.
struct Extension {
  std::uint32_t type = 0;
  Bytes data;
  Bytes padding;  // up to the next multiple of 8; not always zeros
  friend bool operator==(const Extension&, const Extension&) = default;
};

struct Header {
  std::uint32_t version = 3;
  std::uint64_t backing_file_offset = 0;
  std::uint32_t backing_file_size = 0;
  std::uint32_t cluster_bits = 16;
  std::uint64_t size = 0;  // virtual disk size in bytes
  std::uint32_t crypt_method = 0;
  std::uint32_t l1_size = 0;
  std::uint64_t l1_table_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t nb_snapshots = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible_features = 0;
  std::uint64_t compatible_features = 0;
  std::uint64_t autoclear_features = 0;
  std::uint32_t refcount_order = 4;
  std::uint32_t header_length = 72;
  Bytes additional_fields;  // bytes 104 up to header_length

  std::vector<Extension> extensions;              // in file order, without the end mark
  bool has_end_mark = false;                      // the area may end without one
  std::optional<std::string> backing_file_bytes;  // backing_file_size bytes, as they are

  friend bool operator==(const Header&, const Header&) = default;

  [[nodiscard]] std::uint64_t cluster_size() const { return 1ULL << cluster_bits; }
  [[nodiscard]] unsigned refcount_bits() const { return 1U << refcount_order; }
  [[nodiscard]] bool has_incompatible(std::uint64_t bit) const {
    return (incompatible_features & bit) != 0;
  }
  [[nodiscard]] bool has_extended_l2() const { return has_incompatible(incompatible::extended_l2); }
  [[nodiscard]] bool has_data_file() const {
    return has_incompatible(incompatible::external_data_file);
  }
  [[nodiscard]] bool data_file_is_raw() const {
    return (autoclear_features & autoclear::raw_external_data) != 0;
  }
  [[nodiscard]] bool has_lazy_refcounts() const {
    return (compatible_features & compatible::lazy_refcounts) != 0;
  }
  [[nodiscard]] std::uint64_t unknown_incompatible() const {
    return incompatible_features & ~incompatible::known;
  }
  // compression_type as recorded; 0 where the field is absent.
  [[nodiscard]] std::uint8_t compression_type() const;

  // The last extension of this type, as QEMU takes it; nothing if there is none.
  [[nodiscard]] const Extension* find_extension(std::uint32_t type) const;
  // Names end at their first NUL, if they have one, as for QEMU.
  [[nodiscard]] std::optional<std::string> backing_file() const;
  [[nodiscard]] std::optional<std::string> backing_format() const;
  [[nodiscard]] std::optional<std::string> data_file_name() const;

  // Names of the unknown incompatible bits, from the feature name table where it has them.
  [[nodiscard]] std::vector<std::string> unknown_incompatible_names() const;
};

// Whether the bytes begin with the magic and a version that is qcow2 (2 or later).
[[nodiscard]] bool looks_like_qcow2(ByteView start);

// Decodes the header from the first cluster of a file, or as much of it as the file has.
[[nodiscard]] Result<Header> decode_header(ByteView first_cluster);

// Reads what decode_header needs: a few KiB in the common case, at most a cluster.
[[nodiscard]] Result<Header> read_header(const io::File& file);

// The bytes that decode_header read: up to the end of the extensions and of the backing file name.
[[nodiscard]] Bytes encode_header(const Header& header);

}  // namespace coldchain::qcow2
