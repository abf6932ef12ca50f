// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::graph;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

struct Opened {
  explicit Opened(const std::string& path) : files(io::system_files({}).value()) {
    OpenRequest request;
    request.name = path;
    top = graph::open(*files, {}, request).value();
  }
  std::unique_ptr<io::FileSource> files;
  std::unique_ptr<Node> top;

  [[nodiscard]] std::string read(std::uint64_t offset, std::size_t size,
                                 const ChainOptions& options = {}) const {
    Bytes buffer(size);
    const Result<void> done = Chain::make(*top, options).value().read({offset}, buffer);
    return done ? to_string(buffer) : "error: " + done.error().message;
  }
};

constexpr std::uint64_t cluster = 65536;

}  // namespace

TEST_CASE("read: each byte comes from the topmost layer that has it; short layers end in zeros") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(3 * cluster, 'B'));
  ImageOptions options;
  options.size = 2 * cluster;
  options.backing_file = "base";
  options.backing_format = "raw";
  ImageBuilder(options).data(0, 'M').build().write_to(folder / "mid");
  options.size = 5 * cluster;
  options.backing_file = "mid";
  options.backing_format = "qcow2";
  ImageBuilder(options).compressed(3, 'T').zero(4).build().write_to(folder / "top");
  const Opened opened(folder / "top");
  CHECK(opened.read(cluster - 1, 2) == "MB");
  // The base goes on where the middle layer ends, but nobody can see it.
  CHECK(opened.read(2 * cluster - 1, 2) == std::string("B\0", 2));
  CHECK(opened.read(3 * cluster, 2) == "TT");
  CHECK(opened.read(4 * cluster, 2) == std::string(2, '\0'));
  CHECK(opened.read(0, 5 * cluster).size() == 5 * cluster);
  CHECK(opened.read(5 * cluster - 1, 2).starts_with("error: guest range"));
  CHECK(opened.read(~0ULL, 1).starts_with("error: guest range"));
}

TEST_CASE("read: one layer alone, and an internal snapshot") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(cluster, 'B'));
  ImageOptions options;
  options.backing_file = "base";
  options.backing_format = "raw";
  ImageBuilder(options)
      .data(1, '1')
      .snapshot("1", "one")
      .data(1, '2')
      .build()
      .write_to(folder / "top");
  const Opened opened(folder / "top");
  CHECK(opened.read(cluster, 1) == "2");
  CHECK(opened.read(cluster, 1, {.snapshot = "one", .layer = {}}) == "1");
  CHECK(opened.read(0, 1, {.snapshot = "one", .layer = {}}) == "B");
  CHECK(opened.read(0, 1, {.snapshot = {}, .layer = 0}) == std::string(1, '\0'));
  CHECK(opened.read(0, 1, {.snapshot = {}, .layer = 1}) == "B");
  CHECK_FALSE(Chain::make(*opened.top, {.snapshot = "two", .layer = {}}));
  CHECK_FALSE(Chain::make(*opened.top, {.snapshot = {}, .layer = 2}));
  CHECK_FALSE(Chain::make(*opened.top, {.snapshot = "one", .layer = 1}));
}

TEST_CASE("read: an external data file answers for its image") {
  const TempFolder folder;
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder builder(options);
  builder.data(0, 'D').data(2, 'E').build().write_to(folder / "top");
  builder.data_file().write_to(folder / "data");
  const Opened opened(folder / "top");
  CHECK(opened.read(0, 1) == "D");
  CHECK(opened.read(2 * cluster, 1) == "E");
  CHECK(opened.read(cluster, 1) == std::string(1, '\0'));
}

TEST_CASE("make: fails where a link is broken, and says which") {
  const TempFolder folder;
  ImageOptions options;
  options.backing_file = "none";
  options.backing_format = "qcow2";
  ImageBuilder(options).data(0, 'T').build().write_to(folder / "top");
  const Opened opened(folder / "top");
  const auto chain = Chain::make(*opened.top);
  REQUIRE_FALSE(chain);
  CHECK(chain.error().message == "Could not open '" + (folder / "top") +
                                     "': Could not open backing file: Could not open '" +
                                     (folder / "none") + "': No such file or directory");
  CHECK(Chain::make(*opened.top, {.snapshot = {}, .layer = 0}));
}

TEST_CASE("make: the L1 tables of all layers together are bounded, empty ends do not count") {
  const TempFolder folder;
  ImageOptions options;
  options.size = 4ULL << 30;  // 8 L1 entries, the last of them in use
  ImageBuilder(options).data_hole(65535).build().write_to(folder / "base");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).data_hole(65535).build().write_to(folder / "top");
  ChainOptions limit;
  limit.max_l1_bytes = 128;
  CHECK(Chain::make(*Opened(folder / "top").top, limit));
  limit.max_l1_bytes = 127;
  const auto refused = Chain::make(*Opened(folder / "top").top, limit);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::too_large);
  ImageBuilder(options).data_hole(0).build().write_to(folder / "top");
  limit.max_l1_bytes = 72;
  CHECK(Chain::make(*Opened(folder / "top").top, limit));
}

TEST_CASE(
    "read: encrypted data, a damaged stream and a broken table are errors that name the image") {
  const TempFolder folder;
  ImageBuilder encrypted{ImageOptions{}};
  encrypted.data(0, 1).patch_header([](qcow2::Header& h) { h.crypt_method = 1; });
  encrypted.build().write_to(folder / "aes");
  CHECK(Opened(folder / "aes").read(0, 1).find("encrypted (AES)") != std::string::npos);
  CHECK(Opened(folder / "aes").read(cluster, 1) == std::string(1, '\0'));

  ImageBuilder damaged{ImageOptions{}};
  damaged.raw_entry(0, qcow2::compressed_flag | 1ULL << 54 | 0x10000).data(1, 0xff);
  damaged.build().write_to(folder / "stream");
  CHECK(Opened(folder / "stream").read(0, 1).find("compressed cluster at 0x10000") !=
        std::string::npos);
}

TEST_CASE("reader: a compressed cluster that several reads get something of is unpacked once") {
  const TempFolder folder;
  ImageBuilder builder{ImageOptions{}};
  builder.compressed(0, 'c').compressed(1, 'd').build().write_to(folder / "top");
  const Opened opened(folder / "top");
  const Chain chain = Chain::make(*opened.top).value();
  Reader reader(chain);
  Bytes bytes(512);
  REQUIRE(reader.read({0}, bytes).has_value());
  // Whoever unpacks it again fails.
  qcow2::Mapping::Cursor cursor;
  const HostOffset stream =
      chain.layers().front().mapping->locate({0}, cursor).value().compressed.begin;
  const auto target = testing::open_for_writing(folder / "top");
  REQUIRE(target->write_at(stream, Bytes(8, std::byte{0xff})).has_value());
  CHECK(reader.read({512}, bytes).has_value());
  CHECK(bytes == Bytes(512, std::byte{'c'}));
  CHECK_FALSE(chain.read({512}, bytes).has_value());
}
