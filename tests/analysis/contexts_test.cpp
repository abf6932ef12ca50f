// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/analysis/contexts.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::analysis;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

constexpr std::uint64_t cluster = 65536;

std::vector<std::uint32_t> values(const std::string& path, Context context,
                                  const graph::ChainOptions& options = {}) {
  const auto files = io::system_files({}).value();
  graph::OpenRequest request;
  request.name = path;
  const auto top = graph::open(*files, {}, request).value();
  const graph::Chain chain = graph::Chain::make(*top, options).value();
  std::vector<std::uint32_t> found;
  REQUIRE(context_extents(chain, {{0}, {chain.guest_size()}}, context, 1,
                          [&](const ContextExtent& extent) { found.push_back(extent.value); }));
  return found;
}

// Four clusters: the base has the first three, the top hides the second and zeroes the third.
void make_worked_example(const TempFolder& folder) {
  testing::write_file(folder / "base", std::string(3 * cluster, 'A'));
  std::filesystem::resize_file(folder / "base", 4 * cluster);
  ImageOptions options;
  options.size = 4 * cluster;
  options.backing_file = "base";
  options.backing_format = "raw";
  ImageBuilder(options).data(1, 'E').zero(2).build().write_to(folder / "top");
}

}  // namespace

TEST_CASE(
    "contexts: the worked example gives 3,4,7,3 for the top alone and 8,4,7,11 for the chain") {
  const TempFolder folder;
  make_worked_example(folder);
  const graph::ChainOptions alone{.snapshot = {}, .layer = 0};
  using List = std::vector<std::uint32_t>;
  CHECK(values(folder / "top", Context::joint_allocation, alone) == List{3, 4, 7, 3});
  CHECK(values(folder / "top", Context::joint_allocation) == List{8, 4, 7, 11});
  CHECK(values(folder / "top", Context::base_allocation) == List{0, 3});
  CHECK(values(folder / "top", Context::allocation_depth) == List{2, 1, 2});
  CHECK(values(folder / "top", Context::allocation_depth, alone) == List{0, 1, 0});
}

TEST_CASE("contexts: a raw image is local throughout, an empty qcow2 is absent") {
  const TempFolder folder;
  testing::write_file(folder / "raw", "");
  std::filesystem::resize_file(folder / "raw", 4 * cluster);
  ImageBuilder(ImageOptions{}).build().write_to(folder / "empty");
  using List = std::vector<std::uint32_t>;
  CHECK(values(folder / "raw", Context::joint_allocation) == List{7});
  CHECK(values(folder / "raw", Context::allocation_depth) == List{1});
  CHECK(values(folder / "empty", Context::joint_allocation) == List{3});
  CHECK(values(folder / "empty", Context::allocation_depth) == List{0});
}

TEST_CASE("contexts: past the end of a shorter backing file it is that file's depth") {
  const TempFolder folder;
  ImageOptions options;
  options.size = cluster;
  ImageBuilder(options).build().write_to(folder / "short");
  options.size = 2 * cluster;
  options.backing_file = "short";
  options.backing_format = "qcow2";
  ImageBuilder(options).build().write_to(folder / "top");
  using List = std::vector<std::uint32_t>;
  CHECK(values(folder / "top", Context::allocation_depth) == List{0, 2});
  CHECK(values(folder / "top", Context::joint_allocation) == List{3, 11});
  CHECK(values(folder / "top", Context::base_allocation) == List{3});
}

TEST_CASE("context_description: uses nbdinfo's words and, for the joint context, ours") {
  CHECK(context_description(Context::base_allocation, 0) == "data");
  CHECK(context_description(Context::base_allocation, 3) == "hole,zero");
  CHECK(context_description(Context::allocation_depth, 0) == "absent");
  CHECK(context_description(Context::allocation_depth, 1) == "local");
  CHECK(context_description(Context::allocation_depth, 5) == "backing depth 5");
  CHECK(context_description(Context::joint_allocation, 3) == "hole,zero,absent");
  CHECK(context_description(Context::joint_allocation, 4) == "local");
  CHECK(context_description(Context::joint_allocation, 7) == "hole,zero,local");
  CHECK(context_description(Context::joint_allocation, 8) == "backing");
  CHECK(context_description(Context::joint_allocation, 11) == "hole,zero,backing");
}

TEST_CASE("context_from: knows the three names and no other") {
  for (const Context context :
       {Context::base_allocation, Context::allocation_depth, Context::joint_allocation})
    CHECK(context_from(to_string(context)) == context);
  CHECK_FALSE(context_from("qemu:dirty-bitmap:x").has_value());
}
