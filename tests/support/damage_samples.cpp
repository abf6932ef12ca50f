// SPDX-License-Identifier: MIT
#include "damage_samples.hpp"

namespace coldchain::testing {

namespace {

// Guest clusters 0 and `second` have data.
ImageBuilder two_clusters(const ImageOptions& options, std::uint64_t second) {
  ImageBuilder builder(options);
  builder.data(0, 'a').data(second, 'b');
  return builder;
}

}  // namespace

ImageOptions small_clusters() {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 4 << 20;
  return options;
}

ImageBuilder filled(const ImageOptions& options) {
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 12; ++cluster)
    builder.data(cluster, static_cast<std::uint8_t>(cluster + 1));
  builder.zero(12).zero_reserved(13).data(600, 'z');
  return builder;
}

ImageBuilder plain() {
  return filled(small_clusters());
}

ImageBuilder with_snapshot() {
  return plain().snapshot("1", "first").data(20, 'n');
}

ImageBuilder with_bitmap() {
  return plain().bitmap("nightly", 2);
}

ImageBuilder with_compressed() {
  return plain().compressed(30, 'c').compressed(31, 'd');
}

ImageBuilder with_subclusters() {
  ImageOptions options = small_clusters();
  options.cluster_bits = 14;
  options.extended_l2 = true;
  ImageBuilder builder(options);
  builder.subclusters(0, 0xff, 0xff00, 'x').subclusters(1, 0xffffffff, 0, 'y').compressed(2, 'c');
  return builder;
}

ImageBuilder with_data_file() {
  ImageOptions options = small_clusters();
  options.data_file = "data";
  return two_clusters(options, 3);
}

ImageBuilder version2() {
  ImageOptions options = small_clusters();
  options.version = 2;
  return two_clusters(options, 1);
}

ImageBuilder narrow() {
  ImageOptions options = small_clusters();
  options.refcount_order = 0;
  return filled(options);
}

}  // namespace coldchain::testing
