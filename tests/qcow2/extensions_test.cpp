// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/image.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

namespace {

struct BitmapsFields {
  std::uint32_t nb_bitmaps = 1;
  std::uint32_t reserved = 0;
  std::uint64_t size = 32;
  std::uint64_t offset = 0x10000;
};

Header with_bitmaps(const BitmapsFields& fields, std::uint64_t autoclear_bits = 1) {
  Header header;
  header.autoclear_features = autoclear_bits;
  Bytes data;
  append(data,
         wire::BitmapsExtension{fields.nb_bitmaps, fields.reserved, fields.size, fields.offset});
  header.extensions.push_back({extension::bitmaps, data, {}});
  return header;
}

Header with_encryption(std::uint32_t method, std::uint64_t offset, std::size_t bytes = 16) {
  Header header;
  header.crypt_method = method;
  Bytes data;
  append(data, wire::EncryptionHeaderPointer{offset, 4096U});
  data.resize(bytes);
  header.extensions.push_back({extension::encryption_header, data, {}});
  return header;
}

std::string why(const Header& header) {
  const Result<void> accepted = check_extensions(header);
  return accepted ? "" : accepted.error().message;
}

}  // namespace

TEST_CASE("check_extensions: an encryption header belongs to LUKS, aligned and of 16 bytes") {
  CHECK(why(with_encryption(2, 0x10000)).empty());
  CHECK(why(with_encryption(0, 0x10000)) ==
        "CRYPTO header extension only expected with LUKS encryption method: crypt_method at "
        "0x20 is 0, not 2");
  CHECK(why(with_encryption(1, 0x10000)).find("at 0x20 is 1") != std::string::npos);
  CHECK(why(with_encryption(2, 0x10001)) ==
        "Encryption header offset '65537' is not a multiple of cluster size '65536'");
  CHECK(why(with_encryption(2, 0x10000, 8)).find("size 8, but expected size 16") !=
        std::string::npos);
  CHECK(why(with_encryption(2, 0x10000, 24)).find("size 24, but") != std::string::npos);
}

TEST_CASE("check_extensions: each field of a bitmaps extension has its limits") {
  CHECK(why(with_bitmaps({})).empty());
  CHECK(why(with_bitmaps({.nb_bitmaps = limits::max_bitmaps})).empty());
  CHECK(why(with_bitmaps({.size = limits::max_bitmap_directory_bytes})).empty());
  CHECK(why(with_bitmaps({.nb_bitmaps = 0})).find("nb_bitmaps is 0") != std::string::npos);
  CHECK(why(with_bitmaps({.nb_bitmaps = 65536})).find("Image has 65536 bitmaps") !=
        std::string::npos);
  CHECK(why(with_bitmaps({.reserved = 1})).find("Reserved field is not zero") != std::string::npos);
  CHECK(why(with_bitmaps({.offset = 0x10200})).find("0x10200, not aligned") != std::string::npos);
  CHECK(why(with_bitmaps({.size = limits::max_bitmap_directory_bytes + 1}))
            .find("bitmap directory size (67107841) exceeds") != std::string::npos);
}

TEST_CASE("check_extensions: of a stale bitmaps extension only the length counts") {
  CHECK(why(with_bitmaps({.nb_bitmaps = 0, .reserved = 7, .offset = 1}, 0)).empty());
  Header header = with_bitmaps({}, 0);
  header.extensions.back().data.resize(16);
  CHECK(why(header) == "bitmaps_ext: Invalid extension length: 16 bytes, not 24");
}

TEST_CASE("check_extensions: one that a later one replaces is looked at, too") {
  Header header = with_bitmaps({.nb_bitmaps = 0});
  header.extensions.push_back(with_bitmaps({}).extensions.back());
  CHECK(why(header).find("nb_bitmaps is 0") != std::string::npos);
}

TEST_CASE("unsupported_features: names come first, then the bits without a name, as in QEMU") {
  Header header;
  header.incompatible_features = 1ULL << 7 | 1ULL << 33 | 1ULL << 63 | incompatible::dirty;
  CHECK(unsupported_features(header) ==
        "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000200000080");
  Bytes table(96);
  table[1] = std::byte{7};
  std::fill_n(table.begin() + 2, 46, std::byte{'x'});
  table[48] = std::byte{1};  // of a compatible feature
  table[49] = std::byte{63};
  table[50] = std::byte{'y'};
  header.extensions.push_back({extension::feature_name_table, table, {}});
  CHECK(unsupported_features(header) == "Unsupported qcow2 feature(s): " + std::string(46, 'x') +
                                            ", Unknown incompatible feature: 8000000200000000");
}

TEST_CASE("Image: is refused for its extensions, but opened for a check") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.patch_header([](Header& h) {
    h.extensions.push_back({extension::encryption_header, Bytes(16), {}});
  });
  const io::MemoryFile file(builder.build().flat());
  CHECK_FALSE(Image::open(file));
  CHECK(Image::open_damaged(file));
}
