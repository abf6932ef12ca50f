// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <coldchain/analysis/usage.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::analysis;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

constexpr std::uint64_t cluster = 65536;

struct Opened {
  explicit Opened(const std::string& path) : files(io::system_files({}).value()) {
    graph::OpenRequest request;
    request.name = path;
    top = graph::open(*files, {}, request).value();
  }
  std::unique_ptr<io::FileSource> files;
  std::unique_ptr<graph::Node> top;
};

}  // namespace

TEST_CASE("usage: counts what a layer holds by kind, and the image end from its refcounts") {
  const TempFolder folder;
  ImageBuilder builder{ImageOptions{}};
  builder.data(0, 1).data(1, 1).zero(2).compressed(3, 1);
  const auto bytes = builder.build();
  bytes.write_to(folder / "a");
  const NodeUsage usage = usage_of(*Opened(folder / "a").top);
  REQUIRE(usage.own.has_value());
  CHECK(usage.own->data == 2 * cluster);
  CHECK(usage.own->zero == cluster);
  CHECK(usage.own->compressed == cluster);
  REQUIRE(usage.image_end.has_value());
  CHECK(usage.image_end->offset.value == bytes.size);
  CHECK_FALSE(usage.image_end->is_lower_bound);
}

TEST_CASE("usage: with the dirty bit the image end is a lower bound, not below the mapping's end") {
  const TempFolder folder;
  ImageBuilder builder{ImageOptions{}};
  builder.raw_entry(0, 0x4000'0000).patch_header([](qcow2::Header& h) {
    h.incompatible_features |= qcow2::incompatible::dirty;
  });
  builder.build().write_to(folder / "a");
  const NodeUsage usage = usage_of(*Opened(folder / "a").top);
  CHECK(usage.image_end->offset.value == 0x4000'0000 + cluster);
  CHECK(usage.image_end->is_lower_bound);
}

TEST_CASE("usage: unreadable tables and refcounts are findings, and the rest is told") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{}).raw_entry(0, 0x10200).build().write_to(folder / "mapping");
  const NodeUsage mapping = usage_of(*Opened(folder / "mapping").top);
  CHECK(mapping.own->unreadable == cluster);
  CHECK(mapping.image_end->is_lower_bound);
  CHECK(mapping.findings.at(0).code == finding::Code::image_mapping_unreadable);

  ImageBuilder refcounts{ImageOptions{}};
  refcounts.data(0, 1).patch_header([](qcow2::Header& h) { h.refcount_table_offset = 1ULL << 40; });
  refcounts.build().write_to(folder / "refcounts");
  const NodeUsage usage = usage_of(*Opened(folder / "refcounts").top);
  CHECK(usage.own->data == cluster);
  CHECK(usage.image_end->is_lower_bound);
  CHECK(usage.findings.at(0).code == finding::Code::image_refcounts_unreadable);
}

TEST_CASE("provision: what the layers provide and what nobody has add up to the guest's disk") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(2 * cluster, 'B'));
  ImageOptions options;
  options.size = 10 * cluster;
  options.backing_file = "base";
  options.backing_format = "raw";
  ImageBuilder(options).data(0, 1).zero(5).compressed(6, 1).build().write_to(folder / "top");
  const Opened opened(folder / "top");
  const graph::Chain chain = graph::Chain::make(*opened.top).value();
  const Provision provision = provision_of(chain, {{0}, {chain.guest_size()}}, 2).value();
  CHECK(provision.layers.at(0).data == cluster);
  CHECK(provision.layers.at(0).zero == cluster);
  CHECK(provision.layers.at(0).compressed == cluster);
  CHECK(provision.layers.at(1).total() == cluster);
  CHECK(provision.absent == 6 * cluster);
}

TEST_CASE("sizes: capacity is exact, physical is the length, allocation is storage") {
  const TempFolder folder;
  testing::write_file(folder / "raw", std::string(1000, 'x'));
  const Sizes sizes = sizes_of(*Opened(folder / "raw").top);
  CHECK(sizes.capacity == 1000);
  CHECK(sizes.physical == 1000);
  CHECK(sizes.allocation % 512 == 0);
}
