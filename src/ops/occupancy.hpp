// SPDX-License-Identifier: MIT
// Which structures lie in a cluster, all of them at once: a sound image has at most one there.
#pragma once

#include <array>
#include <bitset>
#include <vector>

#include <coldchain/check/check.hpp>

namespace coldchain::ops {

// What is the same in neighbouring clusters.
struct Occupants {
  static constexpr std::size_t most_structures = 32;

  std::uint64_t owners = 0;
  std::uint64_t times = 0;                  // references, of all owners together
  std::bitset<most_structures> structures;  // by finding::Structure

  [[nodiscard]] bool has(finding::Structure structure) const {
    return structures[static_cast<std::size_t>(structure)];
  }
};

class Occupancy {
 public:
  Occupancy() = default;
  explicit Occupancy(const std::vector<check::Owner>& owners);

  [[nodiscard]] const Occupants& at(std::uint64_t cluster) const;

 private:
  struct Segment {
    std::uint64_t first = 0;  // up to the next one
    Occupants occupants{};
  };
  std::vector<Segment> segments_ = {Segment{}};
};

}  // namespace coldchain::ops
