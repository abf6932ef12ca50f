// SPDX-License-Identifier: MIT
#include "flipped_images.hpp"

#include "damage.hpp"

#include <random>

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::testing {

namespace {

std::vector<ImageBuilder> make_sound_images() {
  std::vector<ImageBuilder> images;
  const auto add = [&](ImageOptions options, auto&& fill) {
    options.size = 2 << 20;
    ImageBuilder builder(options);
    for (std::uint64_t cluster = 0; cluster < 9; ++cluster)
      builder.data(cluster, 'd');
    fill(builder);
    images.push_back(builder);
  };
  const auto nothing = [](ImageBuilder&) {};
  ImageOptions small;
  small.cluster_bits = 12;
  add(small, [](ImageBuilder& b) { b.zero(9).zero_reserved(10).compressed(20, 'c'); });
  add(small, [](ImageBuilder& b) { b.snapshot("1", "one").data(30, 'e').snapshot("2", "two"); });
  add(small, [](ImageBuilder& b) { b.bitmap("b", 2); });
  ImageOptions large;
  add(large, nothing);
  for (const std::uint32_t order : {0U, 3U, 6U}) {
    ImageOptions wide = small;
    wide.refcount_order = order;
    add(wide, nothing);
  }
  ImageOptions old = small;
  old.version = 2;
  old.cluster_bits = 9;
  add(old, nothing);
  ImageOptions extended = small;
  extended.cluster_bits = 14;
  extended.extended_l2 = true;
  extended.size = 2 << 20;
  images.push_back(ImageBuilder(extended).subclusters(0, 0xff, 0xff00, 'x').compressed(2, 'c'));
  return images;
}

// Flips bits, sets bytes and writes plausible entries somewhere in the metadata.
Bytes flipped(const SparseBytes& image, std::mt19937_64& random) {
  Bytes bytes = image.flat();
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places = {{0, 112}};
  const qcow2::Header header = qcow2::decode_header(bytes).value();
  const Patient patient(bytes);
  places.emplace_back(header.l1_table_offset, header.l1_size * 8);
  places.emplace_back(patient.at(patient.l1_entry()) & qcow2::offset_mask, 400);
  places.emplace_back(header.refcount_table_offset, 32);
  places.emplace_back(patient.at(patient.refcount_table_entry()), 128);
  if (header.nb_snapshots != 0)
    places.emplace_back(header.snapshots_offset, 64);
  for (std::uint64_t i = 0; i < 1 + random() % 3; ++i) {
    const auto [begin, size] = places[random() % places.size()];
    const std::uint64_t at = begin + random() % size;
    if (random() % 3 == 0) {
      bytes[at] ^= static_cast<std::byte>(1U << random() % 8);
    } else if (random() % 2 == 0) {
      bytes[at] = static_cast<std::byte>(random());
    } else {
      const std::uint64_t entry = random() % bytes.size() / 512 * 512 | (random() % 4) << 62;
      for (std::uint64_t byte = 0; byte < 8; ++byte)
        bytes[at / 8 * 8 + byte] = static_cast<std::byte>(entry >> (8 * (7 - byte)));
    }
  }
  return bytes;
}

}  // namespace

const std::vector<ImageBuilder>& sound_images() {
  static const std::vector<ImageBuilder> images = make_sound_images();
  return images;
}

Bytes flipped_image(int seed) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  const std::vector<ImageBuilder>& images = sound_images();
  return flipped(images[random() % images.size()].build(), random);
}

}  // namespace coldchain::testing
