// SPDX-License-Identifier: MIT
// Chains made by qemu-img and qemu-io over the product of their features, drawn at random with
// fixed seeds: whatever QEMU says of them, we say too. COLDCHAIN_ORACLE_CASES sets how many.
#include "chain_maker.hpp"
#include "oracle.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <filesystem>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ChainMaker;
using testing::Draw;
using testing::LayerFile;
using testing::quoted;
using testing::run_coldchain_in;
using testing::run_in;
using testing::TempFolder;

namespace {

std::string without_our_members(const std::string& text) {
  auto json = nlohmann::ordered_json::parse(text);
  if (json.is_array()) {
    for (auto& image : json)
      image.erase("coldchain");
  } else {
    json.erase("coldchain");
  }
  return json.dump();
}

void compare_info(const ChainMaker& chain) {
  for (const char* extra : {"", "--backing-chain"}) {
    std::vector<std::string> arguments = {"info", chain.top().name, "-f", chain.top().format};
    if (*extra != '\0')
      arguments.emplace_back(extra);
    const std::string theirs =
        fmt::format("qemu-img info {} -f {} {}", extra, chain.top().format, chain.top().name);
    CHECK(run_coldchain_in(chain.path(), arguments).out == run_in(chain.path(), theirs).out);
    arguments.emplace_back("--output=json");
    const std::string json = run_in(chain.path(), theirs + " --output=json").out;
    CHECK(without_our_members(run_coldchain_in(chain.path(), arguments).out) ==
          nlohmann::ordered_json::parse(json).dump());
  }
}

void compare_map(const ChainMaker& chain, std::uint64_t seed) {
  Draw draw(seed);
  const std::uint64_t start = draw.below(chain.top().size) / 512 * 512;
  const std::uint64_t length = 512 + draw.below(chain.top().size) / 512 * 512;
  const std::vector<std::vector<std::string>> variants = {
      {"--output=json"},
      {"--output=human"},
      {"--output=json", fmt::format("--start-offset={}", start),
       fmt::format("--max-length={}", length)}};
  for (const auto& variant : variants) {
    std::vector<std::string> arguments = {"map", "-f", chain.top().format};
    arguments.insert(arguments.end(), variant.begin(), variant.end());
    arguments.push_back(chain.top().name);
    testing::check_like_qemu_img(chain.path(), arguments);
  }
}

// Of the active disk, or of one of the top's internal snapshots.
void compare_contexts_of(const ChainMaker& chain, const std::string& snapshot) {
  for (const char* context : {"base:allocation", "qemu:allocation-depth"}) {
    for (const char* form : {"human", "json"}) {
      const auto theirs =
          run_in(chain.path(),
                 fmt::format("nbdinfo --map={}{} -- [ qemu-nbd -r -A -f {}{} {} ]", context,
                             std::string_view(form) == "json" ? " --json" : "", chain.top().format,
                             snapshot.empty() ? "" : " -l " + snapshot, chain.top().name));
      REQUIRE_MESSAGE(theirs.status == 0, theirs.err);
      std::vector<std::string> arguments = {
          "map",           "-f",    chain.top().format,
          "--context",     context, std::string("--output=") + form,
          chain.top().name};
      if (!snapshot.empty())
        arguments.insert(arguments.end(), {"--snapshot", snapshot});
      CHECK(run_coldchain_in(chain.path(), arguments).out == theirs.out);
    }
  }
}

void compare_contexts(const ChainMaker& chain) {
  compare_contexts_of(chain, "");
  for (const std::string& snapshot : chain.top().snapshots)
    compare_contexts_of(chain, snapshot);
}

std::string guest_content(const std::string& path, const std::string& format,
                          const graph::ChainOptions& options) {
  const auto files = io::system_files({}).value();
  graph::OpenRequest request;
  request.name = path;
  request.format = format;
  const auto top = graph::open(*files, {}, request).value();
  const graph::Chain opened = graph::Chain::make(*top, options).value();
  Bytes content(opened.guest_size());
  const Result<void> done = opened.read({0}, content);
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  return to_string(content);
}

void compare_content(const ChainMaker& chain) {
  const LayerFile& top = chain.top();
  const std::string path = chain.path() + "/" + top.name;
  const std::string out = chain.path() + "/out";
  REQUIRE(run_in(chain.path(),
                 fmt::format("qemu-img convert -f {} -O raw {} out", top.format, top.name))
              .status == 0);
  CHECK((guest_content(path, top.format, {}) == testing::read_file(out)));
  for (const std::string& snapshot : top.snapshots) {
    REQUIRE(run_in(chain.path(),
                   fmt::format("qemu-img convert -f qcow2 -l {} -O raw {} out", snapshot, top.name))
                .status == 0);
    CHECK((guest_content(path, "qcow2", {.snapshot = snapshot, .layer = {}}) ==
           testing::read_file(out)));
  }
}

void compare_measure(const ChainMaker& chain, Draw& draw) {
  const std::string cluster_size = fmt::format("cluster_size={}", 512ULL << draw.below(13));
  const std::string refcount_bits = fmt::format("refcount_bits={}", 1U << draw.below(7));
  const std::vector<std::vector<std::string>> variants = {
      {"-O", "raw"},
      {"-O", "qcow2"},
      {"-O", "qcow2", "-o", cluster_size + "," + refcount_bits},
      {"-O", "qcow2", "-o", cluster_size, "-o", "compat=0.10"},
      {"-O", "qcow2", "-o", "preallocation=falloc", "-o", cluster_size}};
  for (const auto& variant : variants) {
    const std::string form = draw.chance(50) ? "--output=human" : "--output=json";
    std::vector<std::string> arguments = {"measure", form, "-f", chain.top().format};
    arguments.insert(arguments.end(), variant.begin(), variant.end());
    arguments.push_back(chain.top().name);
    testing::check_like_qemu_img(chain.path(), arguments);
  }
}

// A sound image: the same words, the same document, status 0.
void compare_check(const ChainMaker& chain) {
  for (const char* form : {"human", "json"}) {
    const std::vector<std::string> arguments = {"check", "-f", chain.top().format,
                                                std::string("--output=") + form, chain.top().name};
    const auto theirs = run_in(chain.path(), fmt::format("qemu-img {}", fmt::join(arguments, " ")));
    const auto mine = run_coldchain_in(chain.path(), arguments);
    CHECK(mine.status == theirs.status);
    if (std::string_view(form) == "human" || theirs.out.empty())
      CHECK(mine.out == theirs.out);
    else
      CHECK(without_our_members(mine.out) == nlohmann::ordered_json::parse(theirs.out).dump());
  }
}

void compare_image_end(const ChainMaker& chain) {
  if (chain.top().format != "qcow2")
    return;
  const auto check = run_in(
      chain.path(), fmt::format("qemu-img check -f qcow2 --output=json {}", chain.top().name));
  const auto theirs = nlohmann::json::parse(check.out).at("image-end-offset");
  const auto files = io::system_files({}).value();
  graph::OpenRequest request;
  request.name = chain.path() + "/" + chain.top().name;
  const auto top = graph::open(*files, {}, request).value();
  const auto end = analysis::usage_of(*top).image_end;
  REQUIRE(end.has_value());
  // Where the image is marked corrupt, QEMU counts references that we only bound.
  if (end->is_lower_bound)
    CHECK(end->offset.value <= theirs.get<std::uint64_t>());
  else
    CHECK(end->offset.value == theirs.get<std::uint64_t>());
}

}  // namespace

TEST_CASE("oracle: info, map, measure, contexts, content and image end are QEMU's on every chain") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools or nbdinfo are not installed");
    return;
  }
  testing::for_each_seed(40, [&](std::uint64_t seed) {
    const ChainMaker chain(seed, false);
    CAPTURE(chain.recipe());
    compare_info(chain);
    compare_map(chain, seed);
    compare_contexts(chain);
    compare_content(chain);
    compare_check(chain);
    compare_image_end(chain);
    Draw draw(seed);
    compare_measure(chain, draw);
  });
}

TEST_CASE("oracle: maps and contexts of large, mostly empty disks are QEMU's") {
  if (!testing::have_oracles())
    return;
  for (std::uint64_t seed = 1; seed <= 15; ++seed) {
    const ChainMaker chain(seed, true);
    CAPTURE(seed);
    CAPTURE(chain.recipe());
    compare_map(chain, seed);
    compare_contexts(chain);
    compare_image_end(chain);
  }
}
