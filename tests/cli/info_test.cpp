// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "patient.hpp"
#include "temp_folder.hpp"

#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::run_coldchain;
using testing::TempFolder;

namespace {

testing::Ran info_of(const ImageBuilder& builder, std::vector<std::string> arguments = {}) {
  testing::FakeWorld world;
  world.memory["top"] = builder.build().flat();
  world.memory["base"] = Bytes(65536);
  arguments.insert(arguments.begin(), "info");
  arguments.emplace_back("top");
  const int status = cli::run(arguments, world);
  return {status, world.out_text, world.err_text};
}

ImageOptions over_base() {
  ImageOptions options;
  options.backing_file = "base";
  options.backing_format = "raw";
  return options;
}

}  // namespace

TEST_CASE("info: human output of a chain with bitmaps, golden") {
  ImageBuilder builder(over_base());
  builder.data(0, 1).bitmap("nightly", 2).bitmap("broken", 3);
  const auto ran = info_of(builder, {"--backing-chain"});
  CHECK(ran.status == 0);
  CHECK(ran.out == R"(image: top
file format: qcow2
virtual size: 1 MiB (1048576 bytes)
disk size: 576 KiB
cluster_size: 65536
backing file: base
backing file format: raw
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    bitmaps:
        [0]:
            flags:
                [0]: auto
            name: nightly
            granularity: 65536
        [1]:
            flags:
                [0]: in-use
                [1]: auto
            name: broken
            granularity: 65536
    refcount bits: 16
    corrupt: false
    extended l2: false

image: base
file format: raw
virtual size: 64 KiB (65536 bytes)
disk size: 64 KiB
)");
}

TEST_CASE("info: an image with unknown incompatible features is described and the bits are named") {
  ImageBuilder builder(over_base());
  builder.patch_header([](qcow2::Header& h) { h.incompatible_features |= 1ULL << 40; });
  const auto human = info_of(builder);
  CHECK(human.status == 0);
  CHECK(human.out.find("unknown incompatible features: bit 40") != std::string::npos);
  const auto json = nlohmann::json::parse(info_of(builder, {"--output=json"}).out);
  CHECK(json["virtual-size"] == 1 << 20);
  CHECK(json["coldchain"]["unknown-incompatible-features"].size() == 1);
  CHECK(json["coldchain"]["findings"][0]["name"] == "image-unknown-incompatible");
}

TEST_CASE("info: damaged snapshot and bitmap tables are findings, the rest is told") {
  ImageBuilder builder{ImageOptions{}};
  builder.bitmap("a", 2).snapshot("1", "s").patch_header([](qcow2::Header& h) {
    h.snapshots_offset = 1ULL << 40;
    const be64 outside(1ULL << 41);
    std::copy_n(bytes_of(outside).begin(), 8, h.extensions.back().data.begin() + 16);
  });
  const auto ran = info_of(builder, {"--output=json"});
  CHECK(ran.status == 1);  // for the bitmaps
  const auto json = nlohmann::json::parse(ran.out);
  CHECK(json["coldchain"]["findings"].size() == 2);
  CHECK(ran.err.find("image-snapshots-unreadable") != std::string::npos);
  CHECK(ran.err.find("image-bitmaps-unreadable") != std::string::npos);
  CHECK_FALSE(json.contains("snapshots"));
}

TEST_CASE("info: a name with control characters cannot reach the terminal") {
  ImageOptions options;
  options.backing_file = "a\x1b[2J\xff";
  options.backing_format = "raw";
  const auto ran = info_of(ImageBuilder(options));
  CHECK(ran.out.find("backing file: a\\x1b[2J\\xff") != std::string::npos);
  const auto json = nlohmann::json::parse(info_of(ImageBuilder(options), {"--output=json"}).out);
  CHECK(json["coldchain"]["backing-filename-hex"] == "611b5b324aff");
}

TEST_CASE("info: a missing backing file matters only for --backing-chain") {
  ImageOptions options;
  options.backing_file = "none";
  options.backing_format = "raw";
  CHECK(info_of(ImageBuilder(options)).status == 0);
  const auto ran = info_of(ImageBuilder(options), {"--backing-chain"});
  CHECK(ran.status == 1);
  CHECK(ran.out.empty());
  CHECK(ran.err ==
        "coldchain: Could not open 'top': Could not open backing file: Could not open 'none': "
        "No such file or directory\n");
}

TEST_CASE("info: header facts that qemu-img does not tell are under coldchain") {
  ImageBuilder builder{ImageOptions{}};
  builder.extension(0x1234, Bytes(3));
  const auto json = nlohmann::json::parse(info_of(builder, {"--output=json"}).out);
  CHECK(json["coldchain"]["header"]["version"] == 3);
  CHECK(json["coldchain"]["header"]["extensions"][0]["type"] == 0x1234);
  CHECK(json["coldchain"]["header"]["extensions"][0]["name"] == "unknown");
}

TEST_CASE("info: --header shows every field, also of an image that cannot be opened") {
  const TempFolder folder;
  ImageBuilder builder(over_base());
  builder.data(0, 'd').patch_header([](qcow2::Header& header) { header.cluster_bits = 25; });
  testing::write_file(folder / "bad", builder.build().flat());
  const auto refused = testing::run_coldchain_in(folder.path(), {"info", "bad"});
  CHECK(refused.status == 1);
  CHECK_MESSAGE(refused.err.find("'coldchain info --header bad' shows every header field") !=
                    std::string::npos,
                refused.err);
  const auto text = testing::run_coldchain_in(folder.path(), {"info", "--header", "bad"});
  CHECK(text.status == 1);
  CHECK_MESSAGE(text.out.find("cluster_bits at 0x14: 9 to 21 are allowed") != std::string::npos,
                text.out);
  const auto json =
      testing::run_coldchain_in(folder.path(), {"info", "--header", "--output=json", "bad"});
  const auto document = nlohmann::json::parse(json.out);
  CHECK(document["schema"] == "coldchain.header");
  std::set<std::string> names;
  for (const auto& field : document["fields"])
    names.insert(field["name"]);
  for (const char* name : {"magic",
                           "version",
                           "backing_file_offset",
                           "backing_file_size",
                           "cluster_bits",
                           "size",
                           "crypt_method",
                           "l1_size",
                           "l1_table_offset",
                           "refcount_table_offset",
                           "refcount_table_clusters",
                           "nb_snapshots",
                           "snapshots_offset",
                           "incompatible_features",
                           "compatible_features",
                           "autoclear_features",
                           "refcount_order",
                           "header_length",
                           "Backing file format name string",
                           "backing file name"})
    CHECK_MESSAGE(names.contains(name), name);
}

TEST_CASE("info: --header looks for no extensions inside the fields") {
  const TempFolder folder;
  ImageBuilder builder(over_base());
  testing::Patient patient(builder.data(0, 'd').build().flat());
  patient.set_number(100, 4, 0);  // header_length
  testing::write_file(folder / "bad", patient.bytes());
  const auto text = testing::run_coldchain_in(folder.path(), {"info", "--header", "bad"});
  CHECK(text.status == 1);
  CHECK_MESSAGE(text.out.find("extension") == std::string::npos, text.out);
}

TEST_CASE("info: --header finds nothing wrong in a sound header") {
  for (const std::uint32_t version : {2U, 3U}) {
    const TempFolder folder;
    ImageOptions options;
    options.version = version;
    testing::write_file(folder / "a", ImageBuilder(options).data(0, 'd').build().flat());
    const auto ran = testing::run_coldchain_in(folder.path(), {"info", "--header", "a"});
    CHECK_MESSAGE(ran.status == 0, ran.out);
    CHECK(ran.out.find("invalid") == std::string::npos);
  }
}
