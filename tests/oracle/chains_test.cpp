// SPDX-License-Identifier: MIT
// Chains made by qemu-img and qemu-io over the product of their features, drawn at random with
// fixed seeds: whatever QEMU says of them, we say too. COLDCHAIN_ORACLE_CASES sets how many.
#include "draw.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::Draw;
using testing::quoted;
using testing::run_coldchain_in;
using testing::run_in;
using testing::TempFolder;

namespace {

struct LayerFile {
  std::string name;
  std::string format;
  std::uint64_t size = 0;
  std::uint64_t cluster_size = 65536;
  bool has_data_file = false;
  bool version3 = true;
  unsigned refcount_bits = 16;
  std::vector<std::string> snapshots;
};

// A chain in a folder, made by QEMU's tools. `recipe` is the commands, for the message of a
// failure.
class ChainMaker {
 public:
  // Large disks are gigabytes with few clusters in them: their maps have many windows, mostly
  // empty.
  ChainMaker(std::uint64_t seed, bool large) : draw_(seed), large_(large) {
    const std::size_t layers = 1 + draw_.below(5);
    for (std::size_t i = 0; i < layers; ++i) {
      make_layer(i);
      write_to(layers_.back());
    }
  }

  [[nodiscard]] const std::string& path() const { return folder_.path(); }
  [[nodiscard]] const LayerFile& top() const { return layers_.back(); }
  [[nodiscard]] const std::string& recipe() const { return recipe_; }

 private:
  void run(const std::string& command) {
    recipe_ += command + "\n";
    const auto done = run_in(path(), command);
    if (done.status != 0)
      FAIL(recipe_ << done.err);
  }

  // An operation may be refused, such as a compressed write over a cluster that is there already,
  // or anything once QEMU has called its own image corrupt.
  bool try_to(const std::string& command) {
    recipe_ += command + "\n";
    return run_in(path(), command).status == 0;
  }

  std::uint64_t draw_size() {
    if (large_)
      return (1 + draw_.below(40)) * (512ULL << 20) + draw_.below(4) * 512;
    return (1 + draw_.below(12)) * (512 << 10) + (draw_.chance(30) ? draw_.below(100) * 512 : 0);
  }

  void make_layer(std::size_t index) {
    LayerFile layer;
    layer.size = index > 0 && draw_.chance(60) ? layers_.back().size : draw_size();
    if (index == 0 && draw_.chance(30)) {
      layer.name = "0.raw";
      layer.format = "raw";
      run(fmt::format("qemu-img create -q -f raw 0.raw {}", layer.size));
      if (draw_.chance(40)) {
        layer.size += draw_.below(511);
        run(fmt::format("truncate -s {} 0.raw", layer.size));
      }
      layers_.push_back(layer);
      return;
    }
    layer.name = fmt::format("{}.qcow2", index);
    layer.format = "qcow2";
    layer.version3 = draw_.chance(80);
    layer.cluster_size = large_ ? 4096ULL << draw_.below(10) : 512ULL << draw_.below(13);
    std::vector<std::string> options = {fmt::format("cluster_size={}", layer.cluster_size)};
    options.push_back(layer.version3 ? "compat=1.1" : "compat=0.10");
    bool extended = false;
    if (layer.version3) {
      layer.refcount_bits = 1U << draw_.below(7);
      options.push_back(fmt::format("refcount_bits={}", layer.refcount_bits));
      if (draw_.chance(30))
        options.emplace_back("lazy_refcounts=on");
      if (draw_.chance(30))
        options.emplace_back("compression_type=zstd");
      extended = layer.cluster_size >= 16384 && draw_.chance(40);
      if (extended)
        options.emplace_back("extended_l2=on");
      layer.has_data_file = draw_.chance(15);
      if (layer.has_data_file)
        options.push_back(fmt::format("data_file={}.data", index));
      if (layer.has_data_file && index == 0 && draw_.chance(50))
        options.emplace_back("data_file_raw=on");
    }
    if ((index == 0 || extended) && !large_ && draw_.chance(30)) {
      const char* modes[] = {"metadata", "falloc", "full"};
      options.push_back(fmt::format("preallocation={}", modes[index == 0 ? draw_.below(3) : 0]));
    }
    const std::string backing =
        index == 0 ? "" : fmt::format("-b {} -F {}", layers_.back().name, layers_.back().format);
    run(fmt::format("qemu-img create -q -f qcow2 -o {} {} {} {}", fmt::join(options, ","), backing,
                    layer.name, layer.size));
    layers_.push_back(layer);
  }

  void write_to(LayerFile& layer) {
    std::string io;
    const std::uint64_t writable = layer.size / 512 * 512;
    const std::uint64_t operations = draw_.below(14);
    for (std::uint64_t i = 0; i < operations; ++i)
      io += " -c " + quoted(operation(layer, writable));
    if (!io.empty())
      (void)try_to(fmt::format("qemu-io -f {}{} {}", layer.format, io, layer.name));
    if (layer.format != "qcow2")
      return;
    // Compressed clusters share a host cluster many times over: narrow refcounts overflow.
    const bool can_snapshot = !layer.has_data_file && layer.refcount_bits >= 8;
    if (can_snapshot && draw_.chance(25)) {
      const std::string name = fmt::format("s{}", layer.snapshots.size());
      if (try_to(fmt::format("qemu-img snapshot -c {} {}", name, layer.name)))
        layer.snapshots.push_back(name);
      (void)try_to(
          fmt::format("qemu-io -f qcow2 -c {} {}", quoted(operation(layer, writable)), layer.name));
    }
    if (layer.version3 && draw_.chance(20)) {
      (void)try_to(fmt::format("qemu-img bitmap --add -g 64k {} first", layer.name));
      (void)try_to(fmt::format("qemu-img bitmap --add --disable {} second", layer.name));
    }
  }

  std::string operation(const LayerFile& layer, std::uint64_t writable) {
    const std::uint64_t unit = draw_.chance(40) ? layer.cluster_size : 512;
    std::uint64_t offset = draw_.below(writable) / unit * unit;
    std::uint64_t length = std::min((1 + draw_.below(40)) * unit, writable - offset);
    const std::uint64_t pattern = 1 + draw_.below(255);
    switch (draw_.below(layer.format == "raw" ? 4 : 6)) {
      case 0:
        return fmt::format("write -z {} {}", offset, length);
      case 1:
        return fmt::format("write -z -u {} {}", offset, length);
      case 2:
        return fmt::format("discard {} {}", offset, length);
      case 3:
        if (layer.format != "raw" && !layer.has_data_file && layer.cluster_size <= (1 << 20)) {
          offset = offset / layer.cluster_size * layer.cluster_size;
          length = std::min(layer.cluster_size, writable - offset);
          return fmt::format("write -c -P {} {} {}", pattern, offset, length);
        }
        [[fallthrough]];
      default:
        return fmt::format("write -P {} {} {}", pattern, offset, length);
    }
  }

  Draw draw_;
  bool large_;
  TempFolder folder_;
  std::vector<LayerFile> layers_;
  std::string recipe_;
};

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
    const auto theirs = run_in(chain.path(), fmt::format("qemu-img {}", fmt::join(arguments, " ")));
    const auto mine = run_coldchain_in(chain.path(), arguments);
    CHECK(mine.out == theirs.out);
    CHECK(mine.status == theirs.status);
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

std::string file_content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void compare_content(const ChainMaker& chain) {
  const LayerFile& top = chain.top();
  const std::string path = chain.path() + "/" + top.name;
  const std::string out = chain.path() + "/out";
  REQUIRE(run_in(chain.path(),
                 fmt::format("qemu-img convert -f {} -O raw {} out", top.format, top.name))
              .status == 0);
  CHECK((guest_content(path, top.format, {}) == file_content(out)));
  for (const std::string& snapshot : top.snapshots) {
    REQUIRE(run_in(chain.path(),
                   fmt::format("qemu-img convert -f qcow2 -l {} -O raw {} out", snapshot, top.name))
                .status == 0);
    CHECK((guest_content(path, "qcow2", {.snapshot = snapshot, .layer = {}}) == file_content(out)));
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

TEST_CASE("oracle: info, map, contexts, guest content and image end are QEMU's on every chain") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools or nbdinfo are not installed");
    return;
  }
  const char* wanted = std::getenv("COLDCHAIN_ORACLE_CASES");
  const int cases = wanted == nullptr ? 150 : std::atoi(wanted);
  const char* first = std::getenv("COLDCHAIN_ORACLE_FIRST");
  const int begin = first == nullptr ? 1 : std::atoi(first);
  for (int seed = begin; seed < begin + cases; ++seed) {
    const ChainMaker chain(static_cast<std::uint64_t>(seed), false);
    CAPTURE(seed);
    CAPTURE(chain.recipe());
    compare_info(chain);
    compare_map(chain, static_cast<std::uint64_t>(seed));
    compare_contexts(chain);
    compare_content(chain);
    compare_check(chain);
    compare_image_end(chain);
  }
}

TEST_CASE("oracle: maps and contexts of large, mostly empty disks are QEMU's") {
  if (!testing::have_oracles())
    return;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const ChainMaker chain(seed, true);
    CAPTURE(seed);
    CAPTURE(chain.recipe());
    compare_map(chain, seed);
    compare_contexts(chain);
    compare_image_end(chain);
  }
}
