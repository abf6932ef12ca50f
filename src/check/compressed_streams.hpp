// SPDX-License-Identifier: MIT
// Which compressed streams a deep check decompresses. In a sound image no two streams have a byte
// in common, and only the tables of snapshots name a stream again. So all streams together are not
// longer than the data of the file, and a stream that is sound need not be looked at again. A
// hostile image names one stream, or streams that overlap, a million times: beyond that length
// nothing is decompressed. Only lower bounds of the lengths are added up, so that no sound image
// gets there.
#pragma once

#include "table_scan.hpp"

#include <optional>
#include <unordered_set>
#include <vector>

namespace coldchain::check {

class CompressedStreams {
 public:
  // `l1_tables` is how many L1 tables the image has. `image` outlives the object.
  CompressedStreams(const qcow2::Image& image, std::size_t l1_tables)
      : image_(image), l1_tables_(l1_tables) {}

  // The part of an L2 entry that says where its stream lies.
  [[nodiscard]] static std::uint64_t stream_of(std::uint64_t raw) {
    return raw & ~(qcow2::copied_flag | qcow2::compressed_flag);
  }

  // The streams of `entries` that are to be decompressed, each once.
  [[nodiscard]] std::vector<std::uint64_t> choose(const std::vector<CompressedEntry>& entries);

  void note_sound(std::uint64_t stream);

  // The length that all streams together must not exceed, if they do.
  [[nodiscard]] std::optional<std::uint64_t> exceeded() const {
    return is_exceeded_ ? std::optional(most_bytes()) : std::nullopt;
  }

 private:
  // More are not remembered: they take memory.
  static constexpr std::size_t most_sound = 1 << 19;

  [[nodiscard]] std::uint64_t least_bytes(std::uint64_t stream) const;
  [[nodiscard]] std::uint64_t most_bytes() const;

  const qcow2::Image& image_;
  std::size_t l1_tables_;
  std::unordered_set<std::uint64_t> sound_;
  std::optional<std::uint64_t> data_bytes_;  // of the file; once they are needed
  std::uint64_t bytes_ = 0;                  // what the streams have at least
  bool is_exceeded_ = false;
};

}  // namespace coldchain::check
