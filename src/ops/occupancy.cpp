// SPDX-License-Identifier: MIT
#include "occupancy.hpp"

#include <algorithm>

namespace coldchain::ops {

namespace {

struct Edge {
  std::uint64_t cluster = 0;
  const check::Owner* owner = nullptr;
  bool begins = false;
};

}  // namespace

Occupancy::Occupancy(const std::vector<check::Owner>& owners) {
  std::vector<Edge> edges;
  edges.reserve(2 * owners.size());
  for (const check::Owner& owner : owners) {
    edges.push_back({owner.first, &owner, true});
    edges.push_back({owner.first + owner.count, &owner, false});
  }
  std::sort(edges.begin(), edges.end(),
            [](const Edge& a, const Edge& b) { return a.cluster < b.cluster; });
  std::array<std::uint64_t, Occupants::most_structures> counts{};
  for (const Edge& edge : edges) {
    if (segments_.back().first != edge.cluster)
      segments_.push_back({edge.cluster, segments_.back().occupants});
    Occupants& now = segments_.back().occupants;
    const auto structure = static_cast<std::size_t>(edge.owner->structure);
    if (edge.begins) {
      ++now.owners;
      now.times += edge.owner->times;
      ++counts[structure];
    } else {
      --now.owners;
      now.times -= edge.owner->times;
      --counts[structure];
    }
    now.structures[structure] = counts[structure] != 0;
  }
}

const Occupants& Occupancy::at(std::uint64_t cluster) const {
  const auto next = std::upper_bound(
      segments_.begin(), segments_.end(), cluster,
      [](std::uint64_t value, const Segment& segment) { return value < segment.first; });
  return std::prev(next)->occupants;
}

}  // namespace coldchain::ops
