// SPDX-License-Identifier: MIT
// Makes images without QEMU: the tour's demo tree and what the benchmarks measure. Not installed.
#include "damage.hpp"
#include "flipped_images.hpp"
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace {

using coldchain::testing::ImageBuilder;
using coldchain::testing::ImageOptions;

constexpr std::uint64_t mebibyte = 1 << 20;

void write_raw(const std::string& path, std::uint64_t size, std::uint64_t data) {
  std::ofstream out(path, std::ios::binary);
  out << std::string(data, 'B');
  out.close();
  std::filesystem::resize_file(path, size);
}

// A template, two machines on it, one with a checkpoint; one whose base is gone; and one that has
// lost the entry of its only L2 table.
void make_demo(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const auto in = [&](const char* name) { return folder + "/" + name; };
  write_raw(in("template.raw"), 48 * mebibyte, 6 * mebibyte);
  ImageOptions options;
  options.size = 64 * mebibyte;
  options.backing_file = "template.raw";
  options.backing_format = "raw";
  ImageBuilder web(options);
  for (std::uint64_t cluster = 40; cluster < 140; ++cluster)
    web.data(cluster, 'w');
  web.zero(10)
      .zero(11)
      .snapshot("1", "installed")
      .bitmap("nightly", 2)
      .build()
      .write_to(in("web.qcow2"));

  options.backing_file = "web.qcow2";
  options.backing_format = "qcow2";
  ImageBuilder update(options);
  for (std::uint64_t cluster = 100; cluster < 130; ++cluster)
    update.compressed(cluster, 'u');
  update.data(0, 'U').zero(131).build().write_to(in("web-update.qcow2"));

  options.backing_file = "template.raw";
  options.backing_format = "raw";
  options.extended_l2 = true;
  ImageBuilder database(options);
  for (std::uint64_t cluster = 500; cluster < 700; ++cluster)
    database.subclusters(cluster, 0x0000'ffff, 0xff00'0000, 'd');
  database.build().write_to(in("database.qcow2"));

  options.extended_l2 = false;
  options.backing_file = "moved-away.qcow2";
  options.backing_format = "qcow2";
  ImageBuilder(options).data(3, 'o').build().write_to(in("orphan.qcow2"));

  ImageOptions alone;
  alone.size = 64 * mebibyte;
  ImageBuilder mail(alone);
  for (std::uint64_t cluster = 0; cluster < 4; ++cluster)
    mail.data(cluster, 'm');
  coldchain::testing::Patient patient(mail.build().flat());
  patient.set(patient.l1_entry(0), 0);
  coldchain::testing::write_file(in("damaged.qcow2"), patient.bytes());
}

struct ChainShape {
  std::string folder;
  unsigned layers = 8;
  std::uint64_t gigabytes = 128;
  std::vector<unsigned> cluster_bits = {16};
  bool extended = false;       // every second layer, where clusters are large enough
  unsigned percent = 15;       // of clusters allocated per layer
  std::uint64_t clusters = 0;  // allocated per layer instead of a percentage
};

void make_chain(const ChainShape& shape) {
  std::filesystem::create_directories(shape.folder);
  for (unsigned layer = 0; layer < shape.layers; ++layer) {
    ImageOptions options;
    options.size = shape.gigabytes << 30;
    options.cluster_bits = shape.cluster_bits[layer % shape.cluster_bits.size()];
    options.extended_l2 = shape.extended && layer % 2 == 1 && options.cluster_bits >= 14;
    if (layer > 0) {
      options.backing_file = fmt::format("{}.qcow2", layer - 1);
      options.backing_format = "qcow2";
    }
    ImageBuilder builder(options);
    const std::uint64_t clusters = options.size >> options.cluster_bits;
    std::mt19937_64 random(layer + 1);
    const std::uint64_t wanted =
        shape.clusters != 0 ? shape.clusters : clusters * shape.percent / 100;
    builder.shuffle(wanted + wanted / 10 + 64, layer + 77);
    std::uint64_t made = 0;
    for (std::uint64_t cluster = 0; cluster < clusters && made < wanted; ++cluster) {
      if (random() % clusters >= wanted)
        continue;
      ++made;
      const auto bits = static_cast<std::uint32_t>(random());
      if (options.extended_l2)
        builder.raw_entry(cluster, 0, std::uint64_t{bits & 0xffff0000} << 32);
      else if (bits % 16 == 0)
        builder.zero(cluster);
      else
        builder.data_hole(cluster);
    }
    builder.build().write_to(fmt::format("{}/{}.qcow2", shape.folder, layer));
  }
}

void make_folder(const std::string& folder, unsigned count) {
  std::filesystem::create_directories(folder);
  for (unsigned i = 0; i < count; ++i) {
    ImageOptions options;
    options.size = mebibyte;
    if (i >= 10) {
      options.backing_file = fmt::format("{:05}.qcow2", i % 10);
      options.backing_format = "qcow2";
    }
    ImageBuilder(options).data_hole(i % 16).build().write_to(
        fmt::format("{}/{:05}.qcow2", folder, i));
  }
}

void make_damaged(const std::string& folder) {
  std::filesystem::create_directories(folder);
  for (const coldchain::testing::Damage& damage : coldchain::testing::damages())
    coldchain::testing::write_file(folder + "/" + damage.name, damage.image());
}

// Small images of every kind, for the fuzz targets to start from.
void make_seeds(const std::string& folder) {
  std::filesystem::create_directories(folder);
  ImageOptions small;
  small.cluster_bits = 9;
  small.size = 40 * 512;
  const auto fill = [](ImageBuilder builder) {
    builder.data(0, 'a').data(1, 'b').zero(2).compressed(3, 'c').zero_reserved(5).data(38, 'z');
    return builder;
  };
  const auto put = [&](const char* name, const ImageBuilder& builder) {
    builder.build().write_to(folder + "/" + name);
  };
  put("plain", fill(ImageBuilder(small)));
  put("snapshot-bitmap", fill(ImageBuilder(small)).snapshot("1", "s").data(7, 's').bitmap("b", 2));
  ImageOptions over = small;
  over.backing_file = "base";
  over.backing_format = "raw";
  put("overlay", fill(ImageBuilder(over)));
  ImageOptions zstd = over;
  zstd.compression = coldchain::qcow2::CompressionType::zstd;
  put("zstd", fill(ImageBuilder(zstd)));
  ImageOptions version2 = over;
  version2.version = 2;
  put("version2", ImageBuilder(version2).data(0, 'a').compressed(3, 'c'));
  ImageOptions narrow = small;
  narrow.refcount_order = 0;
  put("refcount1", ImageBuilder(narrow).data(0, 'a'));
  ImageOptions extended = over;
  extended.cluster_bits = 14;
  extended.extended_l2 = true;
  extended.size = 6 * 16384;
  put("extended",
      ImageBuilder(extended).subclusters(1, 0xff, 0xff00, 'x').subclusters(2, 0, 0xf, 0, false));
  ImageOptions external = small;
  external.data_file = "base";
  put("data-file", ImageBuilder(external).data(0, 'a').zero(2));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes qcow2 images for the tour and the benchmarks");
  app.require_subcommand(1);
  std::string folder;
  CLI::App* demo = app.add_subcommand("demo", "A small backing tree with one broken link");
  demo->add_option("DIR", folder)->required();
  demo->callback([&] { make_demo(folder); });

  ChainShape shape;
  CLI::App* chain =
      app.add_subcommand("chain", "A chain with random allocation, host offsets shuffled");
  chain->add_option("DIR", shape.folder)->required();
  chain->add_option("--layers", shape.layers);
  chain->add_option("--gigabytes", shape.gigabytes);
  chain->add_option("--cluster-bits", shape.cluster_bits, "One per layer, in turn");
  chain->add_flag("--extended", shape.extended);
  chain->add_option("--percent", shape.percent);
  chain->add_option("--clusters", shape.clusters);
  chain->callback([&] { make_chain(shape); });

  unsigned count = 10000;
  CLI::App* many = app.add_subcommand("folder", "A folder of small images on ten bases");
  many->add_option("DIR", folder)->required();
  many->add_option("--count", count);
  many->callback([&] { make_folder(folder, count); });
  CLI::App* seeds = app.add_subcommand("seeds", "Small images for the fuzz targets");
  seeds->add_option("DIR", folder)->required();
  seeds->callback([&] { make_seeds(folder); });
  CLI::App* damaged = app.add_subcommand("damaged", "Every recipe of damage, a file each");
  damaged->add_option("DIR", folder)->required();
  damaged->callback([&] { make_damaged(folder); });
  CLI::App* flipped = app.add_subcommand("flipped", "An image with flipped metadata");
  int seed = 1;
  flipped->add_option("FILE", folder)->required();
  flipped->add_option("--seed", seed);
  flipped->callback(
      [&] { coldchain::testing::write_file(folder, coldchain::testing::flipped_image(seed)); });
  CLI11_PARSE(app, argc, argv);
  return 0;
}
