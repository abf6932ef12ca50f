// SPDX-License-Identifier: MIT
// The number of references to each host cluster, counted while the tables of an image are read. It
// takes one bit per cluster, and more only for ranges with several references to a cluster. An
// image of 16 TiB needs 32 MiB, with ten internal snapshots 128 MiB, and a mostly empty one almost
// nothing, even if its file claims to be long.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace coldchain::check {

class Claims {
 public:
  // Counts stop at `most`, which is what the image's refcounts can hold.
  explicit Claims(std::uint64_t most) : most_(most) {}

  // References to a cluster that did not fit below `most`.
  struct Overflow {
    std::uint64_t cluster = 0;
    std::uint64_t times = 0;
  };

  // Counts `times` more references to each of `count` clusters.
  std::vector<Overflow> add(std::uint64_t first, std::uint64_t count, std::uint64_t times = 1);

  [[nodiscard]] std::uint64_t at(std::uint64_t cluster) const;

  // The bits of 64 clusters, from a multiple of 64 on: which are claimed at all, and which more
  // than once.
  struct Word {
    std::uint64_t claimed = 0;
    std::uint64_t shared = 0;
  };
  [[nodiscard]] Word word(std::uint64_t first) const;

  // A cluster at or after `from` below which none is claimed; the largest number if none is left.
  [[nodiscard]] std::uint64_t next_used(std::uint64_t from) const;

  // One more than the highest cluster that was ever claimed.
  [[nodiscard]] std::uint64_t end() const { return end_; }

 private:
  static constexpr std::uint64_t clusters_per_chunk = 512;
  static constexpr std::uint64_t chunks_per_segment = 1024;
  // Clusters beyond this number of segments are found by a search instead of by an index.
  static constexpr std::uint64_t most_segments = 4096;

  // Counts of 1 << order bits, packed into words; none where nothing is claimed.
  struct Chunk {
    std::unique_ptr<std::uint64_t[]> words;
    std::uint8_t order = 0;
  };
  using Segment = std::array<Chunk, chunks_per_segment>;

  Chunk& chunk(std::uint64_t index);
  [[nodiscard]] const Chunk* find_chunk(std::uint64_t index) const;
  static std::uint64_t get(const Chunk& chunk, std::uint64_t place);
  static void set(Chunk& chunk, std::uint64_t place, std::uint64_t value);
  static void widen(Chunk& chunk, std::uint64_t value);
  static bool add_free_bits(Chunk& chunk, std::uint64_t place, std::uint64_t count);

  std::uint64_t most_;
  std::uint64_t end_ = 0;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::map<std::uint64_t, Chunk> far_chunks_;
};

}  // namespace coldchain::check
