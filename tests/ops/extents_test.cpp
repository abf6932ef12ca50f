// SPDX-License-Identifier: MIT
// What a plan says of the extents that it reads: they are those of the map.
#include "image_builder.hpp"
#include "memory_files.hpp"

#include <coldchain/analysis/map.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/commit.hpp>
#include <coldchain/ops/pull.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::MemoryFiles;

namespace {

ImageOptions disk(const std::string& backing_file) {
  ImageOptions options;
  options.size = 64 << 20;
  options.backing_file = backing_file;
  options.backing_format = backing_file.empty() ? "" : "qcow2";
  return options;
}

class Scene {
 public:
  explicit Scene(const std::map<std::string, Bytes>& files) : files_(files) {
    graph::OpenRequest request;
    request.name = "top";
    top_ = graph::open(files_, {}, request).value();
    chain_ = graph::Chain::make(*top_).value();
    base_ = graph::Chain::make(*top_->backing()).value();
  }

  // Extents of the map that are data of a layer.
  [[nodiscard]] std::uint64_t in_map(std::uint32_t layer) const {
    std::uint64_t count = 0;
    const auto take = [&](std::span<const analysis::Extent> extents) -> Result<void> {
      for (const analysis::Extent& extent : extents)
        count += extent.layer == layer && extent.present && !extent.zero ? 1 : 0;
      return {};
    };
    REQUIRE(analysis::map(*chain_, {{0}, {chain_->guest_size()}}, 1, take).has_value());
    return count;
  }

  [[nodiscard]] ops::SourceCost of_pull(const ops::PullOptions& options) const {
    edit::Transaction transaction(*top_->file);
    return ops::plan_pull(transaction, *chain_, options).value().cost.sources.front();
  }

  [[nodiscard]] ops::SourceCost of_commit() const {
    edit::Transaction transaction(*top_->backing()->file);
    ops::CommitOptions options;
    options.base = 1;
    return ops::plan_commit(transaction, *chain_, *base_, options).value().cost.sources.front();
  }

 private:
  MemoryFiles files_;
  std::unique_ptr<graph::Node> top_;
  std::optional<graph::Chain> chain_;
  std::optional<graph::Chain> base_;
};

}  // namespace

TEST_CASE("extents: a plan counts those of the map, however they are cut for the copy") {
  ImageBuilder base(disk(""));
  for (std::uint64_t cluster = 0; cluster < 400; ++cluster)
    base.data(cluster, 'b');
  for (std::uint64_t cluster = 500; cluster < 510; ++cluster)
    base.compressed(cluster, 'c');
  ImageBuilder top(disk("base"));
  top.data(200, 't');
  const Scene scene({{"base", base.build().flat()}, {"top", top.build().flat()}});
  CHECK(scene.in_map(1) == 3);
  for (const ops::Compressed compressed :
       {ops::Compressed::keep, ops::Compressed::unpack, ops::Compressed::recompress}) {
    ops::PullOptions options;
    options.compressed = compressed;
    const ops::SourceCost source = scene.of_pull(options);
    CHECK(source.extents == 3);
    CHECK(source.bytes == 409 * 65536);
  }
}

TEST_CASE("extents: one of which a part is not copied is still one") {
  ImageBuilder base(disk(""));
  for (std::uint64_t cluster = 0; cluster < 10; ++cluster)
    base.data(cluster, cluster % 4 == 1 ? '\0' : 'b');
  const Scene scene(
      {{"base", base.build().flat()}, {"top", ImageBuilder(disk("base")).build().flat()}});
  ops::PullOptions options;
  CHECK(scene.of_pull(options).bytes == 10 * 65536);
  options.detects_zeroes = true;
  const ops::SourceCost source = scene.of_pull(options);
  CHECK(source.bytes == 7 * 65536);
  CHECK(source.extents == scene.in_map(1));
}

TEST_CASE("extents: a commit counts those of the map") {
  ImageBuilder top(disk("base"));
  for (std::uint64_t cluster = 0; cluster < 300; ++cluster)
    top.data(cluster, 't');
  top.data(600, 't');
  ImageBuilder base(disk(""));
  // Some are written in place, some are allocated.
  for (std::uint64_t cluster = 0; cluster < 300; cluster += 3)
    base.data(cluster, 'b');
  const Scene scene({{"base", base.build().flat()}, {"top", top.build().flat()}});
  CHECK(scene.in_map(0) == 2);
  CHECK(scene.of_commit().extents == 2);
}
