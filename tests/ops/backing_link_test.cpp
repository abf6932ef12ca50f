// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <algorithm>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/ops/backing_link.hpp>
#include <coldchain/qcow2/image.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using edit::Change;
using ops::BackingLink;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

constexpr std::uint32_t unknown_extension = 0x11223344;

// Without a backing file; the format, if there is one, lies behind the first sector.
Bytes image(const std::string& format) {
  ImageOptions options;
  options.cluster_bits = 12;
  ImageBuilder builder(options);
  builder.data(0, 'a').extension(unknown_extension, Bytes(440, std::byte{1}));
  if (!format.empty()) {
    const ByteView bytes = text_bytes(format);
    builder.extension(qcow2::extension::backing_file_format, Bytes(bytes.begin(), bytes.end()));
  }
  return builder.build().flat();
}

// The sectors of a change, in the order in which they come to the storage.
std::vector<Change> sectors_of(const Change& change, bool backwards) {
  constexpr std::size_t size = io::OverlayFile::sector_size;
  std::vector<Change> sectors;
  for (std::size_t at = 0; at < change.after.size(); at += size) {
    const auto begin = change.after.begin() + static_cast<std::ptrdiff_t>(at);
    sectors.push_back({change.phase, change.offset + at, {}, Bytes(begin, begin + size)});
  }
  if (backwards)
    std::reverse(sectors.begin(), sectors.end());
  return sectors;
}

}  // namespace

TEST_CASE("backing link: one that takes several writes is there whole or not at all") {
  struct Row {
    std::string former;
    std::string format;
    bool backwards;
  };
  std::vector<Row> rows;
  for (const std::string former : {"", "qcow2", "host_device", "fifteen letters"}) {
    for (const std::string format : {"raw", ""})
      rows.insert(rows.end(), {{former, format, false}, {former, format, true}});
  }
  for (const Row& row : rows) {
    const BackingLink link{"a name that is longer than what ends the header", row.format};
    CAPTURE(row.former);
    CAPTURE(row.format);
    CAPTURE(row.backwards);
    const io::MemoryFile before(image(row.former));
    edit::Transaction transaction(before);
    const Result<void> planned = ops::plan_relink(transaction, link);
    REQUIRE_MESSAGE(planned.has_value(), planned.error().message);
    io::MemoryFile file(image(row.former));
    const auto write = [&](const Change& change) -> Result<void> {
      for (const Change& sector : sectors_of(change, row.backwards)) {
        CHECK(file.write_at(sector.offset, sector.after).has_value());
        const auto opened = qcow2::Image::open(file);
        REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
        const qcow2::Header& header = opened->header();
        const auto is_unknown = [](const qcow2::Extension& extension) {
          return extension.type == unknown_extension && extension.data == Bytes(440, std::byte{1});
        };
        CHECK(std::any_of(header.extensions.begin(), header.extensions.end(), is_unknown));
        const std::optional<std::string> format =
            link.format.empty() ? std::nullopt : std::optional(link.format);
        const bool is_whole =
            header.backing_file() == link.name && header.backing_format() == format;
        CHECK((is_whole || !header.backing_file()));
      }
      return {};
    };
    CHECK(transaction.for_each_change(write).has_value());
    CHECK(qcow2::Image::open(file)->header().backing_file() == link.name);
  }
}

TEST_CASE("backing link: a format is recorded where today's feature names fill the first sector") {
  // QEMU's eight names, of 48 bytes each, end with the first sector; the name follows.
  Bytes names;
  for (const unsigned type : {0U, 0U, 0U, 0U, 0U, 1U, 2U, 2U}) {
    const auto bit = static_cast<std::uint8_t>(names.size() / 48 % 5);
    names.insert(names.end(), {static_cast<std::byte>(type), std::byte{bit}});
    names.resize(names.size() + 46, std::byte{'n'});
  }
  for (const std::string name : {"base", "another/base"}) {
    ImageOptions options;
    options.cluster_bits = 16;
    options.backing_file = "base";
    ImageBuilder builder(options);
    builder.data(0, 'a').extension(qcow2::extension::feature_name_table, names);
    builder.extension(unknown_extension, Bytes(0));
    const Bytes image = builder.build().flat();
    const io::MemoryFile before(image);
    edit::Transaction transaction(before);
    const Result<void> planned = ops::plan_relink(transaction, BackingLink{name, "qcow2"});
    REQUIRE_MESSAGE(planned.has_value(), planned.error().message);
    io::MemoryFile file(image);
    std::size_t in_first_sector = 0;
    const auto write = [&](const Change& change) -> Result<void> {
      in_first_sector += change.offset.value < 512 ? 1 : 0;
      CHECK(file.write_at(change.offset, change.after).has_value());
      const auto opened = qcow2::Image::open(file);
      REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
      const qcow2::Header& header = opened->header();
      const bool is_old = header.backing_file() == "base" && !header.backing_format();
      const bool is_new = header.backing_file() == name && header.backing_format() == "qcow2";
      CHECK((is_old || is_new));
      CHECK(header.find_extension(unknown_extension) != nullptr);
      return {};
    };
    CHECK(transaction.for_each_change(write).has_value());
    CHECK(in_first_sector == 1);
    CHECK(qcow2::Image::open(file)->header().backing_format() == "qcow2");
  }
}
