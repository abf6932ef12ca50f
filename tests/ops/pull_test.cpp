// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "draw.hpp"
#include "image_builder.hpp"
#include "memory_files.hpp"

#include <coldchain/graph/open.hpp>
#include <coldchain/ops/pull.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::ops;
using edit::Fresh;
using edit::Transaction;
using testing::Draw;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::MemoryFiles;

namespace {

// An image, "top", and what is below it.
class Scene {
 public:
  explicit Scene(std::map<std::string, Bytes> files) : files_(std::move(files)) {
    graph::OpenRequest request;
    request.name = "top";
    top_ = graph::open(files_, {}, request).value();
    chain_ = graph::Chain::make(*top_).value();
  }

  [[nodiscard]] const io::File& file() const { return *top_->file; }
  [[nodiscard]] const graph::Chain& chain() const { return *chain_; }
  Result<Pull> plan(Transaction& transaction, const Allocation& allocation, bool is_plan) const {
    PullOptions options;
    options.allocation = allocation;
    options.is_plan = is_plan;
    options.force = true;
    return plan(transaction, options);
  }
  Result<Pull> plan(Transaction& transaction, const PullOptions& options) const {
    return plan_pull(transaction, *chain_, options);
  }

 private:
  MemoryFiles files_;
  std::unique_ptr<graph::Node> top_;
  std::optional<graph::Chain> chain_;
};

void put_cluster(ImageBuilder& builder, const ImageOptions& options, std::uint64_t cluster,
                 Draw& draw) {
  switch (draw.below(options.version == 2 ? 3 : options.extended_l2 ? 4 : 5)) {
    case 0:
      builder.data(cluster, 'd');
      break;
    case 1:
      builder.data_hole(cluster);
      break;
    case 2:
      // Many share a host cluster.
      if (options.refcount_order >= 4)
        builder.compressed(cluster, 'c');
      break;
    case 3:
      if (options.extended_l2)
        builder.subclusters(cluster, 0xf0, 0xf00, 's');
      else
        builder.zero(cluster);
      break;
    default:
      builder.zero_reserved(cluster);
  }
}

struct Drawn {
  ImageOptions options;
  std::map<std::string, Bytes> files;
  Allocation allocation;
};

ImageOptions draw_options(Draw& draw) {
  constexpr std::uint32_t cluster_bits[] = {9, 9, 10, 12, 14, 16, 16, 21};
  ImageOptions options;
  options.cluster_bits = cluster_bits[draw.below(std::size(cluster_bits))];
  options.version = draw.chance(25) ? 2 : 3;
  options.refcount_order = options.version == 2 ? 4 : static_cast<std::uint32_t>(draw.below(7));
  options.extended_l2 = options.version == 3 && options.cluster_bits >= 14 && draw.chance(50);
  const std::uint64_t most = options.cluster_bits == 9    ? 6000
                             : options.cluster_bits == 21 ? 4
                                                          : 300;
  options.size = ((2 + draw.below(most)) << options.cluster_bits) - 512 * draw.below(2);
  return options;
}

// A disk of which some stretches have something, maybe over another one, and what is to be
// allocated of it.
Drawn draw_image(Draw& draw) {
  Drawn drawn{draw_options(draw), {}, {}};
  ImageOptions& options = drawn.options;
  if (draw.chance(40)) {
    ImageOptions below = options;
    below.size = draw.chance(50) ? options.size : 512 + options.size / 2;
    ImageBuilder base(below);
    base.data(0, 'b');
    if (below.size >> options.cluster_bits > 1)
      base.data((below.size >> options.cluster_bits) - 1, 'e');
    drawn.files.emplace("base", base.build().flat());
    options.backing_file = "base";
    options.backing_format = "qcow2";
  }
  ImageBuilder top(options);
  const std::uint64_t clusters = options.size >> options.cluster_bits;
  if (draw.chance(30) && clusters > 1)
    top.shuffle(2 * clusters + 8, draw.below(1000));
  for (std::uint64_t cluster = draw.below(40); cluster < clusters;) {
    for (std::uint64_t i = draw.below(4); i > 0 && cluster < clusters; --i, ++cluster)
      put_cluster(top, options, cluster, draw);
    cluster += draw.below(draw.chance(20) ? 3000 : 20);
  }
  if (options.refcount_order > 0 && draw.chance(15))
    top.snapshot("1", "one");
  drawn.files.emplace("top", top.build().flat());
  drawn.allocation.places = draw.chance(30) ? Places::zero_fill : Places::reserve;
  if (draw.chance(40)) {
    const std::uint64_t begin = draw.below(options.size);
    drawn.allocation.range = {{begin}, {begin + 1 + draw.below(options.size - begin)}};
  }
  return drawn;
}

void check_same(const Pull& counted, const Pull& real) {
  const auto figures = [](const Pull& pull) {
    const Cost& cost = pull.cost;
    std::vector<std::uint64_t> all = {
        cost.written_bytes,   cost.zeroed_bytes,       cost.metadata_bytes,
        cost.added.data,      cost.added.l2_tables,    cost.added.refcounts,
        cost.added.others,    cost.cluster_size,       cost.image_end_before,
        cost.image_end_after, cost.file_size_before,   cost.file_size_after,
        cost.side_file_bytes, pull.storage_bytes,      pull.compressed_bytes,
        pull.data.whole_size, pull.data.ranges.size(), pull.data.places.size()};
    for (const SourceCost& source : cost.sources)
      all.insert(all.end(), {source.bytes, source.extents});
    return all;
  };
  CHECK(figures(counted) == figures(real));
  CHECK((counted.data.ranges == real.data.ranges));
  CHECK((counted.data.places == real.data.places));
}

// A disk without anything.
std::map<std::string, Bytes> empty_disk(const ImageOptions& options) {
  return {{"top", ImageBuilder(options).build().flat()}};
}

// An overlay without data over a file of which each L2 table is named `times` times.
std::map<std::string, Bytes> over_repeated_tables(const ImageOptions& options,
                                                  testing::Patient base, std::uint64_t times) {
  const std::uint64_t tables = base.header().l1_size / times;
  for (std::uint64_t i = tables; i < base.header().l1_size; ++i)
    base.set(base.l1_entry(i), base.at(base.l1_entry(i % tables)));
  ImageOptions over = options;
  over.backing_file = "base";
  over.backing_format = "qcow2";
  return {{"base", base.bytes()}, {"top", ImageBuilder(over).build().flat()}};
}

}  // namespace

TEST_CASE("plan_pull: an allocation that is only counted comes to the same as one that is made") {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Draw draw(seed);
    const Drawn drawn = draw_image(draw);
    CAPTURE(seed);
    CAPTURE(drawn.options.cluster_bits);
    CAPTURE(drawn.options.refcount_order);
    CAPTURE(drawn.options.extended_l2);
    CAPTURE(drawn.options.size);
    CAPTURE(to_command(drawn.allocation));
    const Scene scene(drawn.files);
    Transaction kept(scene.file());
    Transaction counted(scene.file(), Fresh::counted);
    const Result<Pull> real = scene.plan(kept, drawn.allocation, false);
    const Result<Pull> figures = scene.plan(counted, drawn.allocation, true);
    REQUIRE_MESSAGE(real.has_value(), real.error().message);
    REQUIRE_MESSAGE(figures.has_value(), figures.error().message);
    check_same(*figures, *real);
  }
}

TEST_CASE("plan_pull: a disk of 16 TiB is answered by its figures, and allocated in parts") {
  ImageOptions options;
  options.size = 16ULL << 40;
  const Scene scene(empty_disk(options));
  for (const Places places : {Places::reserve, Places::zero_fill}) {
    Transaction transaction(scene.file());
    const Result<Pull> plan = scene.plan(transaction, {places, std::nullopt}, true);
    REQUIRE_MESSAGE(plan.has_value(), plan.error().message);
    CHECK(plan->limit == transaction.limit());
    CHECK(plan->cost.added.data == 1ULL << 28);
    CHECK(plan->cost.added.l2_tables == 1ULL << 15);
    CHECK(plan->cost.metadata_bytes > 2ULL << 30);
    CHECK(plan->storage_bytes == 16ULL << 40);
    CHECK(transaction.is_empty());
    const Result<Pull> run = scene.plan(transaction, {places, std::nullopt}, false);
    REQUIRE_FALSE(run.has_value());
    CHECK(run.error().message.find("in parts with 'allocate --range OFFSET:LENGTH'") !=
          std::string::npos);
    CHECK(transaction.is_empty());
    CHECK(scene.plan(transaction, {places, GuestRange{{1ULL << 40}, {1025ULL << 30}}}, false)
              .has_value());
  }
}

TEST_CASE("plan_pull: a disk that no image can have room for is refused with the number") {
  ImageOptions options;
  options.cluster_bits = 21;
  options.size = 1ULL << 61;
  const Scene vast(empty_disk(options));
  for (const Places places : {Places::reserve, Places::zero_fill}) {
    Transaction transaction(vast.file());
    const Result<Pull> plan = vast.plan(transaction, {places, std::nullopt}, true);
    REQUIRE_FALSE(plan.has_value());
    CHECK(plan.error().message == "no host offset is left after the end of the image");
  }
  options.cluster_bits = 16;
  options.size = 2ULL << 50;
  const Scene many(empty_disk(options));
  Transaction transaction(many.file());
  const Result<Pull> plan = many.plan(transaction, {Places::reserve, std::nullopt}, true);
  REQUIRE_FALSE(plan.has_value());
  CAPTURE(plan.error().message);
  CHECK(plan.error().message.find("separate ranges") != std::string::npos);
}

TEST_CASE("plan_pull: more extents than the files have storage for are refused") {
  constexpr std::uint64_t times = 16;         // more often is refused when the image is opened
  constexpr std::uint64_t entries = 512 / 8;  // of an L2 table
  for (const std::uint64_t tables : {200U, 400U}) {
    ImageOptions options;
    options.cluster_bits = 9;
    options.size = times * tables * entries << options.cluster_bits;
    ImageBuilder builder(options);
    for (std::uint64_t table = 0; table < tables; ++table)
      builder.data(table * entries, 'd');
    testing::Patient base(builder.build().flat());
    for (std::uint64_t cluster = 0; cluster < tables * entries; cluster += 2)
      base.set(base.l2_entry(cluster), base.at(base.l2_entry(0)));
    const Scene scene(over_repeated_tables(options, std::move(base), times));
    Transaction transaction(scene.file(), Fresh::counted);
    const Result<Pull> plan = scene.plan(transaction, {.is_plan = true});
    CAPTURE(tables);
    CHECK(plan.has_value() == (tables == 200));
    if (!plan) {
      CHECK(plan.error().code == ErrorCode::too_large);
      CHECK(plan.error().message.find("more than its files have storage for") != std::string::npos);
    }
  }
}

TEST_CASE("plan_pull: a plan that would read far more data than the files can hold is refused") {
  ImageOptions options;
  options.size = 1 << 30;
  testing::Patient base(ImageBuilder(options).data(0, 'd').build().flat());
  for (std::uint64_t cluster = 1; cluster < 8192; ++cluster)
    base.set(base.l2_entry(cluster), base.at(base.l2_entry(0)));
  const Scene scene(over_repeated_tables(options, std::move(base), 2));
  Transaction transaction(scene.file(), Fresh::counted);
  const Result<Pull> plan = scene.plan(transaction, {.detects_zeroes = true, .is_plan = true});
  REQUIRE_FALSE(plan.has_value());
  CHECK(plan.error().code == ErrorCode::too_large);
  CHECK(plan.error().message.find("plan it without --detect-zeroes") != std::string::npos);
  const Result<Pull> unread = scene.plan(transaction, {.is_plan = true});
  REQUIRE_MESSAGE(unread.has_value(), unread.error().message);
}
