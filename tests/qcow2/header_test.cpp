// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <random>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/header.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

namespace {

Header plain_header() {
  Header header;
  header.header_length = 104;
  header.has_end_mark = true;
  return header;
}

Bytes padded(const Header& header) {
  Bytes bytes = encode_header(header);
  bytes.resize(std::max<std::size_t>(bytes.size(), header.cluster_size()));
  return bytes;
}

std::string error_of(const Bytes& bytes) {
  const Result<Header> header = decode_header(bytes);
  REQUIRE_FALSE(header);
  return header.error().message;
}

std::string error_of(const Header& header) {
  return error_of(padded(header));
}

Bytes to_bytes(std::string_view text) {
  return {text_bytes(text).begin(), text_bytes(text).end()};
}

}  // namespace

TEST_CASE("header: decoding what was encoded gives the same header") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    Header header;
    header.version = round % 2 == 0 ? 2 : 3;
    header.cluster_bits = 9 + static_cast<std::uint32_t>(random() % 13);
    header.size = random();
    header.crypt_method = static_cast<std::uint32_t>(random());
    header.l1_size = static_cast<std::uint32_t>(random());
    header.l1_table_offset = random();
    header.refcount_table_offset = random();
    header.refcount_table_clusters = static_cast<std::uint32_t>(random());
    header.nb_snapshots = static_cast<std::uint32_t>(random());
    header.snapshots_offset = random();
    if (header.version == 3) {
      header.incompatible_features = random();
      header.compatible_features = random();
      header.autoclear_features = random();
      header.refcount_order = static_cast<std::uint32_t>(random() % 7);
      header.additional_fields =
          Bytes(8 * (random() % 3), std::byte{static_cast<std::uint8_t>(round)});
      header.header_length = 104 + static_cast<std::uint32_t>(header.additional_fields.size());
    }
    header.extensions.push_back({0x12345678, to_bytes("abc"), Bytes(5, std::byte{9})});
    header.extensions.push_back({extension::backing_file_format, to_bytes("raw"), Bytes(5)});
    header.has_end_mark = true;
    header.backing_file_offset = encode_header(header).size();
    header.backing_file_bytes = "base";
    header.backing_file_size = 4;
    const Bytes bytes = padded(header);
    const Result<Header> decoded = decode_header(bytes);
    REQUIRE(decoded);
    CHECK(*decoded == header);
    const Bytes again = encode_header(*decoded);
    CHECK(std::equal(again.begin(), again.end(), bytes.begin()));
  }
}

TEST_CASE("header: what is not qcow2, or not a known version, is refused") {
  CHECK(error_of(Bytes(512)) == "Image is not in qcow2 format");
  CHECK(error_of(Bytes(20)) == "Image is not in qcow2 format");
  Header header = plain_header();
  header.version = 1;
  CHECK(error_of(header) == "Unsupported qcow2 version 1");
  header.version = 4;
  CHECK(error_of(header) == "Unsupported qcow2 version 4");
}

TEST_CASE("header: cluster_bits is refused outside 9 to 21") {
  Header header = plain_header();
  for (const std::uint32_t bits : {9U, 21U}) {
    header.cluster_bits = bits;
    CHECK(decode_header(padded(header)));
  }
  for (const std::uint32_t bits : {8U, 22U, 0xffffffffU}) {
    header.cluster_bits = bits;
    Bytes bytes = encode_header(header);
    CHECK_FALSE(decode_header(bytes));
  }
}

TEST_CASE("header: header_length is refused below 104 and above a cluster") {
  Header header = plain_header();
  header.cluster_bits = 9;
  header.header_length = 103;
  CHECK(error_of(header) ==
        "qcow2 header too short: header_length at 0x64 is 103, at least 104 are needed");
  header.header_length = 513;
  CHECK(error_of(header) == "qcow2 header exceeds cluster size: header_length at 0x64 is 513");
  header.header_length = 512;
  header.additional_fields = Bytes(512 - 104);
  header.has_end_mark = false;
  CHECK(decode_header(padded(header)));
}

TEST_CASE("header: refcount_order is refused above 6") {
  Header header = plain_header();
  header.refcount_order = 6;
  CHECK(decode_header(padded(header)));
  header.refcount_order = 7;
  CHECK_FALSE(decode_header(padded(header)));
}

TEST_CASE("header: a backing file name fits the cluster and has at most 1023 bytes") {
  Header header = plain_header();
  header.backing_file_offset = 112;
  header.backing_file_bytes = std::string(1023, 'x');
  header.backing_file_size = 1023;
  CHECK(decode_header(padded(header))->backing_file()->size() == 1023);
  header.backing_file_size = 1024;
  CHECK(error_of(header) == "Backing file name too long: backing_file_size at 0x10 is 1024");
  header.backing_file_bytes.reset();
  header.backing_file_offset = header.cluster_size() + 1;
  CHECK(error_of(header) == "Invalid backing file offset: backing_file_offset at 0x8 is 0x10001");
  header.backing_file_offset = 4;  // QEMU opens it, with no extensions
  header.backing_file_size = 0;
  CHECK(decode_header(padded(header)).has_value());
}

TEST_CASE("header: an extension that reaches out of its area is refused") {
  Header header = plain_header();
  header.cluster_bits = 9;
  header.extensions.push_back({0x1111, Bytes(512 - 104 - 8), {}});
  header.has_end_mark = false;
  CHECK(decode_header(padded(header)));
  Bytes bytes = padded(header);
  const be32 longer(512 - 104 - 7);
  std::copy_n(bytes_of(longer).begin(), 4, bytes.begin() + 108);
  CHECK(error_of(bytes).find("reaches past the end of the header area") != std::string::npos);
}

TEST_CASE("header: a backing format of 16 bytes is refused, one of 15 is not") {
  Header header = plain_header();
  header.extensions.push_back(
      {extension::backing_file_format, Bytes(15, std::byte{'x'}), Bytes(1)});
  CHECK(decode_header(padded(header))->backing_format()->size() == 15);
  header.extensions[0] = {extension::backing_file_format, Bytes(16, std::byte{'x'}), {}};
  CHECK_FALSE(decode_header(padded(header)));
}

TEST_CASE("header: a file that ends inside the header is told where") {
  const Bytes bytes = padded(plain_header());
  for (std::size_t size = 0; size < 104; ++size)
    CHECK_FALSE(decode_header(ByteView(bytes).first(size)));
  CHECK(decode_header(ByteView(bytes).first(104)));
}

TEST_CASE("header: unknown incompatible bits are named from the feature name table") {
  Header header = plain_header();
  header.incompatible_features = 1ULL << 7 | 1ULL << 63 | incompatible::dirty;
  Bytes table(48);
  table[1] = std::byte{7};
  const Bytes name = to_bytes("time travel");
  std::copy(name.begin(), name.end(), table.begin() + 2);
  header.extensions.push_back({extension::feature_name_table, table, {}});
  CHECK(header.unknown_incompatible_names() == std::vector<std::string>{"time travel", "bit 63"});
}

TEST_CASE("header: names end at their first NUL, and their bytes are kept") {
  Header header = plain_header();
  header.extensions.push_back(
      {extension::backing_file_format, to_bytes(std::string_view("qcow2\0\0\0", 8)), {}});
  header.backing_file_offset = 200;
  header.backing_file_bytes = std::string("base\0junk", 9);
  header.backing_file_size = 9;
  const Header decoded = decode_header(padded(header)).value();
  CHECK(decoded == header);
  CHECK(decoded.backing_file() == "base");
  CHECK(decoded.backing_format() == "qcow2");
}

TEST_CASE("read_header: reads beyond the first page where the header does") {
  testing::ImageOptions options;
  options.backing_file = "base.raw";
  options.backing_format = "raw";
  testing::ImageBuilder builder(options);
  builder.extension(0xabcdef, Bytes(6000, std::byte{1}));
  const io::MemoryFile file(builder.build().flat());
  const Result<Header> header = read_header(file);
  REQUIRE(header);
  CHECK(header->backing_file() == "base.raw");
  REQUIRE(header->find_extension(0xabcdef) != nullptr);
  CHECK(header->find_extension(0xabcdef)->data.size() == 6000);
}

TEST_CASE("looks_like_qcow2: wants magic and version") {
  CHECK(looks_like_qcow2(encode_header(plain_header())));
  CHECK_FALSE(looks_like_qcow2(to_bytes("QFI\xfb")));
  CHECK_FALSE(looks_like_qcow2(Bytes(8)));
}
