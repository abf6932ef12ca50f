// SPDX-License-Identifier: MIT
// Names the guest clusters that use a cluster which has a second use. Gathers notes. Reads the L2
// tables again, one after the other, of images with such clusters alone.
#include "table_walk.hpp"

#include <coldchain/qcow2/tables.hpp>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Finding;
using qcow2::L2Entry;
using Clusters = std::unordered_set<std::uint64_t>;

Clusters shared_clusters(const Survey& survey, bool has_snapshots) {
  constexpr std::size_t most_clusters = 1 << 16;
  Clusters clusters;
  for (const Finding& finding : survey.result.findings.runs()) {
    // With snapshots, that a cluster has several users is no damage by itself.
    const bool is_shared =
        finding.code == Code::data_in_metadata || finding.code == Code::cluster_used_twice ||
        (finding.code == Code::refcount_too_low && finding.expected > 1 && !has_snapshots);
    for (std::uint64_t i = 0; is_shared && i < finding.count && clusters.size() < most_clusters;
         ++i)
      clusters.insert(finding.index + i);
  }
  return clusters;
}

void name_user(Survey& survey, const Reference& reference, std::uint64_t i, L2Entry entry,
               const Clusters& clusters) {
  HostRange host{entry.host_offset(), entry.host_offset() + 1};
  if (entry.is_compressed()) {
    const qcow2::CompressedExtent extent = entry.compressed_extent(survey.geometry.cluster_bits());
    host = {extent.begin, extent.begin + extent.max_bytes};
  } else if (entry.host_offset().value == 0) {
    return;
  }
  const std::uint64_t last = survey.cluster_of(host.end.value - 1);
  for (std::uint64_t cluster = survey.cluster_of(host.begin.value); cluster <= last; ++cluster) {
    if (!clusters.contains(cluster))
      continue;
    Finding user = entry_finding(survey, reference, Code::shared_cluster_user, i, entry.raw());
    user.found = cluster;
    survey.result.findings.add(std::move(user));
  }
}

}  // namespace

void name_shared_users(Survey& survey, bool has_snapshots) {
  constexpr std::uint64_t most_again_bytes = 2 << 20;
  const Clusters clusters = shared_clusters(survey, has_snapshots);
  // Where tables were left out, a second walk would say so twice and leave out the same.
  if (clusters.empty() || survey.image.header().has_data_file() || survey.result.is_partial)
    return;
  const std::size_t step = survey.geometry.l2_entry_bytes() / sizeof(be64);
  walk_tables(survey, {.l1_tables = survey.l1_tables, .most_again_bytes = most_again_bytes},
              [&](const Reference& reference, const std::vector<be64>& table) {
                for (std::size_t i = 0; i < table.size(); i += step)
                  name_user(survey, reference, i / step, L2Entry(table[i].get()), clusters);
              });
}

}  // namespace coldchain::check
