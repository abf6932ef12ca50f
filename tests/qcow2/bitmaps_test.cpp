// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "patient.hpp"

#include <functional>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/geometry.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

namespace {

Bitmap some_bitmap() {
  Bitmap bitmap;
  bitmap.bitmap_table_offset = 0x50000;
  bitmap.bitmap_table_size = 3;
  bitmap.flags = bitmap_flags::automatic;
  bitmap.extra_data = Bytes(5, std::byte{1});
  bitmap.name = "nightly";
  return bitmap;
}

bool is_accepted(const Bitmap& bitmap) {
  return decode_bitmap_directory(encode_bitmap_directory({bitmap}), 1).has_value();
}

}  // namespace

TEST_CASE("bitmaps: decoding what was encoded gives the same directory") {
  const std::vector<Bitmap> bitmaps = {some_bitmap(), some_bitmap()};
  CHECK(decode_bitmap_directory(encode_bitmap_directory(bitmaps), 2).value() == bitmaps);
}

TEST_CASE("bitmaps: a directory that ends inside an entry is an error at every length") {
  const Bytes bytes = encode_bitmap_directory({some_bitmap()});
  const std::size_t needed = 24 + 5 + 7;
  for (std::size_t size = 0; size < needed; ++size)
    CHECK_FALSE(decode_bitmap_directory(ByteView(bytes).first(size), 1));
  CHECK(decode_bitmap_directory(ByteView(bytes).first(needed), 1));
}

TEST_CASE("bitmaps: granularity, name and table size have limits on both sides") {
  Bitmap bitmap = some_bitmap();
  for (const unsigned bits : {9U, 31U}) {
    bitmap.granularity_bits = static_cast<std::uint8_t>(bits);
    CHECK(is_accepted(bitmap));
  }
  for (const unsigned bits : {8U, 32U, 255U}) {
    bitmap.granularity_bits = static_cast<std::uint8_t>(bits);
    CHECK_FALSE(is_accepted(bitmap));
  }
  bitmap = some_bitmap();
  bitmap.name = std::string(1023, 'x');
  CHECK(is_accepted(bitmap));
  bitmap.name += 'x';
  CHECK_FALSE(is_accepted(bitmap));
  bitmap.name.clear();
  CHECK_FALSE(is_accepted(bitmap));
  bitmap = some_bitmap();
  bitmap.bitmap_table_size = limits::max_bitmap_table_entries;
  CHECK(is_accepted(bitmap));
  ++bitmap.bitmap_table_size;
  CHECK_FALSE(is_accepted(bitmap));
}

TEST_CASE("read_bitmaps: without the autoclear bit the extension is stale and there are none") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", bitmap_flags::automatic).bitmap("b", bitmap_flags::in_use);
  const io::MemoryFile file(builder.build().flat());
  Header header = read_header(file).value();
  REQUIRE(read_bitmaps(file, header).value().size() == 2);
  CHECK(read_bitmaps(file, header).value()[1].name == "b");
  header.autoclear_features = 0;
  CHECK(read_bitmaps(file, header).value().empty());
}

TEST_CASE("read_bitmaps: a directory that lies about its size allocates nothing") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", 0);
  const io::MemoryFile file(builder.build().flat());
  Header header = read_header(file).value();
  Extension& extension = header.extensions.back();
  REQUIRE(extension.type == qcow2::extension::bitmaps);
  const be64 huge(60 << 20);
  std::copy_n(bytes_of(huge).begin(), 8, extension.data.begin() + 8);
  CHECK_FALSE(read_bitmaps(file, header));
  extension.data.resize(23);
  CHECK_FALSE(read_bitmaps(file, header));
}

TEST_CASE("check_bitmap: what QEMU refuses an image for in an entry of the directory") {
  Header header;
  header.size = 64 << 20;
  Bitmap sound = some_bitmap();
  sound.extra_data.clear();
  sound.bitmap_table_size = 1;
  const auto accepts = [&](const std::function<void(Bitmap&)>& change) {
    Bitmap bitmap = sound;
    change(bitmap);
    return check_bitmap(bitmap, header).has_value();
  };
  CHECK(accepts([](Bitmap&) {}));
  CHECK_FALSE(accepts([](Bitmap& b) { b.extra_data.resize(8); }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.flags = bitmap_flags::extra_data_compatible; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.flags = 8; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.type = 0; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_offset = 0; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_offset += 512; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_offset = ~0xffffULL; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_size = 0; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_size = 2; }));
  CHECK_FALSE(accepts([](Bitmap& b) { b.bitmap_table_size = (512 << 20) / 65536 + 1; }));
}

TEST_CASE("check_bitmap: the table of one that is in use need not fit the disk") {
  Header header;
  header.size = 64 << 20;
  Bitmap bitmap = some_bitmap();
  bitmap.extra_data.clear();
  bitmap.flags = bitmap_flags::in_use;
  CHECK(check_bitmap(bitmap, header));
  bitmap.bitmap_table_size = (512 << 20) / 65536 + 1;
  CHECK_FALSE(check_bitmap(bitmap, header));
}

TEST_CASE(
    "read_bitmaps: a bitmap larger than QEMU's limit is refused, and the message has the limit") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", 0).bitmap("b", 0);
  testing::Patient patient(builder.build().flat());
  const auto message = [&](std::uint64_t entries) {
    patient.set_number(patient.bitmap_directory() + 8, 4, entries);
    const auto bitmaps = read_bitmaps(io::MemoryFile(patient.bytes()), patient.header());
    return bitmaps ? std::string() : bitmaps.error().message;
  };
  CHECK(message(8192) == "");  // 512 MiB in clusters of 64 KiB
  CHECK(message(8193) ==
        "bitmap directory entry 0: bitmap_table_size is 8193 (QEMU takes at most 8192 in clusters "
        "of 65536 bytes)");
}

TEST_CASE("check_bitmaps: each entry counts, and so do the names and the length of the directory") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", 0).bitmap("b", bitmap_flags::automatic);
  const Bytes image = builder.build().flat();
  const auto accepts = [&](const std::function<void(testing::Patient&)>& change) {
    testing::Patient patient(image);
    change(patient);
    const io::MemoryFile file(patient.bytes());
    const auto bitmaps = read_bitmaps(file, patient.header());
    REQUIRE(bitmaps);
    return check_bitmaps(file, patient.header(), *bitmaps).has_value();
  };
  const auto entry = [](std::uint64_t offset, unsigned bytes, std::uint64_t value) {
    return [=](testing::Patient& p) { p.set_number(p.bitmap_directory() + offset, bytes, value); };
  };
  constexpr std::uint64_t second = 32;
  CHECK(accepts([](testing::Patient&) {}));
  CHECK_FALSE(accepts(entry(8, 4, 14)));
  CHECK_FALSE(accepts(entry(second + 8, 4, 14)));
  CHECK_FALSE(accepts(entry(second, 8, 0x1ff)));
  CHECK_FALSE(accepts(entry(second + 20, 4, 1)));
  CHECK_FALSE(accepts(entry(second + 24, 1, 'a')));
  CHECK_FALSE(accepts([](testing::Patient& p) {
    p.set_header([](Header& h) {
      const be64 size(72);
      std::copy_n(bytes_of(size).begin(), 8, h.extensions.back().data.begin() + 8);
    });
  }));
  // One that is in use is not loaded, and may have the name of another.
  CHECK(accepts([&](testing::Patient& p) {
    entry(second + 24, 1, 'a')(p);
    entry(second + 12, 4, bitmap_flags::in_use)(p);
  }));
}

TEST_CASE("check_bitmaps: an entry in the table of a bitmap counts where QEMU loads that bitmap") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", 0);
  const Bytes image = builder.build().flat();
  const auto accepts = [&](std::uint64_t table_entry, std::uint32_t flags) {
    testing::Patient patient(image);
    patient.set(patient.bitmap_table(), table_entry);
    patient.set_number(patient.bitmap_directory() + 12, 4, flags);
    const io::MemoryFile file(patient.bytes());
    return check_bitmaps(file, patient.header(), read_bitmaps(file, patient.header()).value())
        .has_value();
  };
  for (const std::uint64_t good : {0x0ULL, 0x1ULL, 0x10000ULL})
    CHECK(accepts(good, 0));
  for (const std::uint64_t bad : {0x2ULL, 0x10001ULL, 0x10200ULL, 1ULL << 56}) {
    CHECK_FALSE(accepts(bad, 0));
    CHECK(accepts(bad, bitmap_flags::in_use));
  }
}

TEST_CASE("check_bitmaps: very many bitmaps with one table, or with tables in holes, cost little") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  builder.bitmap("a", 0);
  testing::Patient patient(builder.build().flat());
  const io::MemoryFile file(patient.bytes());
  std::vector<Bitmap> bitmaps = read_bitmaps(file, patient.header()).value();
  bitmaps.resize(60000, bitmaps.front());
  for (std::size_t i = 0; i < bitmaps.size(); ++i)
    bitmaps[i].name = std::to_string(i);
  Header header = patient.header();
  const be64 size(encode_bitmap_directory(bitmaps).size());
  std::copy_n(bytes_of(size).begin(), 8, header.extensions.back().data.begin() + 8);
  CHECK(check_bitmaps(file, header, bitmaps));
}
