// SPDX-License-Identifier: MIT
// Chains made by qemu-img and qemu-io over the product of their features, drawn at random.
#pragma once

#include "draw.hpp"
#include "process.hpp"
#include "temp_folder.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

namespace coldchain::testing {

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
  [[nodiscard]] const std::vector<LayerFile>& layers() const { return layers_; }  // the base first
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
    // Some data is zeros, without being marked as such.
    const std::uint64_t drawn = 1 + draw_.below(255);
    const std::uint64_t pattern = drawn <= 32 ? 0 : drawn;
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

}  // namespace coldchain::testing
