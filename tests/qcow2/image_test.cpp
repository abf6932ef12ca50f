// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/image.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

// What opening says of a sound image whose header was changed.
Result<void> opening(const std::function<void(Header&)>& patch, ImageOptions options = {}) {
  ImageBuilder builder(options);
  builder.data(0, 1).patch_header(patch);
  const io::MemoryFile file(builder.build().flat());
  const Result<Image> image = Image::open(file);
  if (!image)
    return fail(image.error());
  const Result<Mapping> mapping = image->active_mapping();
  return mapping ? Result<void>{} : fail(mapping.error());
}

bool accepts(const std::function<void(Header&)>& patch, ImageOptions options = {}) {
  return opening(patch, std::move(options)).has_value();
}

}  // namespace

TEST_CASE("open: a sound image of every cluster size and version opens") {
  for (std::uint32_t bits = 9; bits <= 21; ++bits) {
    for (const std::uint32_t version : {2U, 3U}) {
      ImageOptions options;
      options.cluster_bits = bits;
      options.version = version;
      CHECK(accepts([](Header&) {}, options));
    }
  }
}

TEST_CASE("open: tables beyond QEMU's limits are refused before anything is allocated for them") {
  CHECK(accepts([](Header& h) { h.l1_size = 1; }));
  CHECK_FALSE(accepts([](Header& h) { h.l1_size = (32 << 20) / 8 + 1; }));
  CHECK_FALSE(accepts([](Header& h) { h.l1_size = 0; }));
  CHECK_FALSE(accepts([](Header& h) { h.l1_table_offset += 512; }));
  CHECK_FALSE(accepts([](Header& h) { h.l1_table_offset = 1ULL << 62; }));
  CHECK_FALSE(accepts([](Header& h) { h.l1_table_offset = ~0xffffULL; }));
  CHECK_FALSE(accepts([](Header& h) { h.refcount_table_clusters = 0; }));
  CHECK(accepts([](Header& h) { h.refcount_table_clusters = 128; }));
  CHECK_FALSE(accepts([](Header& h) { h.refcount_table_clusters = 129; }));
  CHECK_FALSE(accepts([](Header& h) { h.refcount_table_clusters = 0xffffffff; }));
  CHECK_FALSE(accepts([](Header& h) { h.nb_snapshots = 65537; }));
  CHECK_FALSE(accepts([](Header& h) { h.size = 1ULL << 62; }));
}

TEST_CASE("open: compression type and its feature bit must agree") {
  ImageOptions zstd;
  zstd.compression = CompressionType::zstd;
  CHECK(accepts([](Header&) {}, zstd));
  CHECK_FALSE(accepts([](Header& h) { h.incompatible_features = 0; }, zstd));
  CHECK_FALSE(accepts([](Header& h) { h.incompatible_features = incompatible::compression_type; }));
  CHECK_FALSE(accepts([](Header& h) { h.additional_fields[0] = std::byte{2}; }, zstd));
}

TEST_CASE("open: extended L2 needs clusters of 16 KiB") {
  ImageOptions options;
  options.extended_l2 = true;
  options.cluster_bits = 14;
  CHECK(accepts([](Header&) {}, options));
  options.extended_l2 = false;
  options.cluster_bits = 13;
  CHECK_FALSE(
      accepts([](Header& h) { h.incompatible_features |= incompatible::extended_l2; }, options));
}

TEST_CASE("open: unknown incompatible features are described, but their tables are not read") {
  ImageBuilder builder{ImageOptions{}};
  builder.patch_header([](Header& h) { h.incompatible_features |= 1 << 9; });
  const io::MemoryFile file(builder.build().flat());
  const Image image = Image::open(file).value();
  CHECK(image.header().unknown_incompatible() == 1 << 9);
  const auto mapping = image.active_mapping();
  REQUIRE_FALSE(mapping);
  CHECK(mapping.error().code == ErrorCode::unsupported);
}

TEST_CASE("open: data-file-raw without a data file and unknown encryption are refused") {
  CHECK_FALSE(accepts([](Header& h) { h.autoclear_features |= autoclear::raw_external_data; }));
  CHECK_FALSE(accepts([](Header& h) { h.crypt_method = 3; }));
  CHECK(accepts([](Header& h) { h.crypt_method = 2; }));
}

TEST_CASE("active_mapping: an L1 table that names one L2 table very many times is refused") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 64 * 512 * 512;  // 512 L1 entries
  ImageBuilder builder(options);
  builder.table(0);
  const auto bytes = builder.build();
  Bytes flat = bytes.flat();
  const Header header = decode_header(flat).value();
  const auto l1 = flat.begin() + static_cast<std::ptrdiff_t>(header.l1_table_offset);
  const Bytes first(l1, l1 + 8);
  const auto named = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
      std::copy(first.begin(), first.end(), l1 + static_cast<std::ptrdiff_t>(8 * i));
    const io::MemoryFile file(flat);
    return Image::open(file).value().active_mapping().has_value();
  };
  CHECK(named(16));
  CHECK_FALSE(named(17));
}

TEST_CASE("check_readable: encrypted data is a clear error") {
  ImageBuilder builder{ImageOptions{}};
  builder.patch_header([](Header& h) { h.crypt_method = 2; });
  const io::MemoryFile file(builder.build().flat());
  const auto readable = Image::open(file).value().check_readable();
  REQUIRE_FALSE(readable);
  CHECK(readable.error().message == "guest data is encrypted (LUKS); only metadata can be read");
}

TEST_CASE("guest_size: whole sectors, as QEMU's guest sees it") {
  ImageOptions options;
  options.size = 65536 + 700;
  const io::MemoryFile file(ImageBuilder(options).build().flat());
  CHECK(Image::open(file).value().guest_size() == 65536 + 512);
}

TEST_CASE("snapshot_mapping: has the snapshot's clusters and its size") {
  ImageBuilder builder{ImageOptions{}};
  builder.data(0, 1).snapshot("1", "one").data(1, 2);
  const io::MemoryFile file(builder.build().flat());
  const Image image = Image::open(file).value();
  const auto snapshots = read_snapshots(file, image.header()).value();
  const Mapping mapping = image.snapshot_mapping(snapshots[0]).value();
  Mapping::Cursor cursor;
  CHECK(mapping.guest_size() == 1 << 20);
  CHECK(mapping.locate({0}, cursor).value().kind == RunKind::data);
  CHECK(mapping.locate({65536}, cursor).value().kind == RunKind::unallocated);
}

TEST_CASE("has_preallocated_metadata: counts clusters against the file's storage") {
  // A memory file has storage for all it has, so nothing is preallocated in it.
  ImageBuilder builder{ImageOptions{}};
  builder.data(0, 1);
  const io::MemoryFile file(builder.build().flat());
  CHECK_FALSE(Image::open(file).value().has_preallocated_metadata());
}

TEST_CASE(
    "image: a compressed cluster that is read bit by bit is unpacked once, and another anew") {
  ImageBuilder builder(ImageOptions{});
  builder.compressed(0, 1).compressed(1, 2);
  io::MemoryFile file(builder.build().flat());
  const Image image = Image::open(file).value();
  const Mapping mapping = image.active_mapping().value();
  Mapping::Cursor cursor;
  const Location first = mapping.locate({0}, cursor).value();
  const Location second = mapping.locate({image.header().cluster_size()}, cursor).value();
  Image::Unpacked unpacked;
  Bytes bytes(512);
  REQUIRE(image.read(first, {0}, bytes, unpacked).has_value());
  // Whoever unpacks it again fails.
  REQUIRE(file.write_at(first.compressed.begin, Bytes(8, std::byte{0xff})).has_value());
  CHECK(image.read(first, {512}, bytes, unpacked).has_value());
  CHECK(bytes == Bytes(512, std::byte{1}));
  REQUIRE(image.read(second, second.cluster_begin, bytes, unpacked).has_value());
  CHECK(bytes == Bytes(512, std::byte{2}));
  CHECK_FALSE(image.read(first, {0}, bytes, unpacked).has_value());
}
