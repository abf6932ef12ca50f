// SPDX-License-Identifier: MIT
// Tests that every cluster of metadata belongs to one structure and to no guest data, whatever the
// refcounts say; that a mapping without snapshots uses no cluster twice; and whether clusters to
// which nothing refers look like tables.
// Gathers the orphans that are tables, with what they name. The owners are sorted here.
#include "survey.hpp"

#include <algorithm>
#include <bit>

#include <coldchain/check/table_finder.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Structure;

std::string name_of(const Owner& owner) {
  const std::string_view name = finding::to_string(owner.structure);
  switch (owner.structure) {
    case Structure::l2_table:
    case Structure::snapshot_l2_table:
      return fmt::format("{} of L1 entry {}", name, owner.index);
    case Structure::refcount_block:
      return fmt::format("{} of table entry {}", name, owner.index);
    case Structure::snapshot_l1_table:
      return fmt::format("{} of snapshot {}", name, owner.index);
    case Structure::bitmap_table:
    case Structure::bitmap_data:
      return fmt::format("{} of bitmap {}", name, owner.index);
    default:
      return std::string(name);
  }
}

void find_overlaps(Survey& survey) {
  std::vector<Owner>& owners = survey.result.owners;
  std::stable_sort(owners.begin(), owners.end(),
                   [](const Owner& a, const Owner& b) { return a.first < b.first; });
  const Owner* furthest = nullptr;
  for (const Owner& owner : owners) {
    const std::uint64_t end = owner.first + owner.count;
    if (furthest != nullptr && owner.first < furthest->first + furthest->count)
      survey.result.findings.add(
          {.code = Code::structures_overlap,
           .detail = fmt::format("{} and {}", name_of(*furthest), name_of(owner)),
           .structure = Structure::host_cluster,
           .index = owner.first,
           .host = survey.range_of(
               owner.first, std::min(end, furthest->first + furthest->count) - owner.first)});
    if (furthest == nullptr || end > furthest->first + furthest->count)
      furthest = &owner;
  }
}

// Where more refers to a cluster of metadata than its structures do, guest data lies there.
void find_data_in_metadata(Survey& survey) {
  struct Edge {
    std::uint64_t cluster;
    std::uint64_t times;
    bool is_end;
  };
  std::vector<Edge> edges;
  edges.reserve(2 * survey.result.owners.size());
  for (const Owner& owner : survey.result.owners) {
    edges.push_back({owner.first, owner.times, false});
    edges.push_back({owner.first + owner.count, owner.times, true});
  }
  std::sort(edges.begin(), edges.end(),
            [](const Edge& a, const Edge& b) { return a.cluster < b.cluster; });
  std::uint64_t expected = 0;
  std::uint64_t at = 0;
  for (const Edge& edge : edges) {
    for (; expected != 0 && at < edge.cluster; ++at) {
      const std::uint64_t counted = survey.result.claims.at(at);
      if (counted > expected)
        survey.result.findings.add({.code = Code::data_in_metadata,
                                    .structure = Structure::host_cluster,
                                    .index = at,
                                    .host = survey.range_of(at),
                                    .expected = expected,
                                    .found = counted});
    }
    at = edge.cluster;
    expected += edge.is_end ? 0 - edge.times : edge.times;
  }
}

// Without snapshots, only compressed clusters have a reason to share a host cluster.
void find_shared_data(Survey& survey) {
  auto owner = survey.result.owners.begin();
  for (std::uint64_t first = 0; first < survey.result.claims.end(); first += 64) {
    const Claims::Word word = survey.result.claims.word(first);
    if (word.claimed == 0)
      first = align_down(survey.result.claims.next_used(first + 64), 64) - 64;
    std::uint64_t shared = word.shared;
    if (shared == 0)
      continue;
    shared &= ~survey.result.compressed.word(first).claimed;
    for (; shared != 0; shared &= shared - 1) {
      const std::uint64_t cluster = first + static_cast<std::uint64_t>(std::countr_zero(shared));
      while (owner != survey.result.owners.end() && owner->first + owner->count <= cluster)
        ++owner;
      if (owner == survey.result.owners.end() || owner->first > cluster)
        survey.result.findings.add({.code = Code::cluster_used_twice,
                                    .structure = Structure::host_cluster,
                                    .index = cluster,
                                    .host = survey.range_of(cluster),
                                    .found = survey.result.claims.at(cluster)});
    }
  }
}

}  // namespace

void check_owners(Survey& survey, bool has_snapshots) {
  find_overlaps(survey);
  find_data_in_metadata(survey);
  if (!has_snapshots)
    find_shared_data(survey);
}

void find_orphan_tables(Survey& survey) {
  // So much is looked at: more would take as long as reading a disk.
  constexpr std::uint64_t most_bytes = 4ULL << 30;
  TableFinder finder(survey.image);
  const std::unordered_set<std::uint64_t> orphans(survey.orphans.begin(), survey.orphans.end());
  for (const std::uint64_t cluster : survey.orphans) {
    if (finder.bytes() >= most_bytes)
      break;
    if (!finder.look_at(cluster))
      continue;
    survey.orphans_of_tables.insert(cluster);
    finder.for_each_named([&](std::uint64_t named) {
      if (orphans.contains(named))
        survey.orphans_of_tables.insert(named);
    });
    const bool is_l1 = finder.names_tables();
    survey.result.findings.add({.code = is_l1 ? Code::lost_snapshot : Code::orphan_table,
                                .structure = Structure::host_cluster,
                                .index = cluster,
                                .host = survey.range_of(cluster)});
  }
}

}  // namespace coldchain::check
