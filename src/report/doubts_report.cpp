// SPDX-License-Identifier: MIT
#include "doubts_report.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using finding::Code;
using finding::Finding;
using finding::Structure;

constexpr std::size_t most_lines = 100;

// Guest clusters that use one host cluster, or as many host clusters that follow each other.
struct Use {
  std::uint64_t first = 0;  // host cluster
  std::uint64_t count = 1;
  std::uint64_t cluster_size = 0;
  std::vector<std::uint64_t> guests{};  // where the ranges begin
  bool is_snapshot = false;

  [[nodiscard]] bool continues(const Use& next) const {
    return next.first == first + count && next.cluster_size == cluster_size &&
           next.is_snapshot == is_snapshot &&
           std::equal(guests.begin(), guests.end(), next.guests.begin(), next.guests.end(),
                      [&](std::uint64_t mine, std::uint64_t other) {
                        return other == mine + count * cluster_size;
                      });
  }
};

std::string range(std::uint64_t begin, std::uint64_t size) {
  return fmt::format("{:#x}-{:#x}", begin, begin + size);
}

std::vector<Use> uses_of(const finding::Findings& findings) {
  std::map<std::uint64_t, Use> by_cluster;
  for (const Finding& finding : findings) {
    if (finding.code != Code::shared_cluster_user || finding.guest.empty())
      continue;
    Use& use = by_cluster[finding.found];
    use.first = finding.found;
    use.cluster_size = finding.guest.size() / finding.count;
    use.is_snapshot = use.is_snapshot || finding.structure == Structure::snapshot_l2_table;
    for (std::uint64_t i = 0; i < finding.count; ++i)
      use.guests.push_back(finding.guest.begin.value + i * use.cluster_size);
  }
  std::vector<Use> uses;
  for (auto& [cluster, use] : by_cluster) {
    if (!uses.empty() && uses.back().continues(use))
      ++uses.back().count;
    else
      uses.push_back(std::move(use));
  }
  return uses;
}

std::string use_line(const Use& use) {
  constexpr std::size_t most_guests = 8;
  const std::uint64_t bytes = use.count * use.cluster_size;
  std::string line = fmt::format("host {} is used by", range(use.first * use.cluster_size, bytes));
  for (std::size_t i = 0; i < std::min(use.guests.size(), most_guests); ++i)
    line += fmt::format("{} guest {}", i == 0 ? "" : " and", range(use.guests[i], bytes));
  if (use.guests.size() > most_guests)
    line += fmt::format(" and {} more", use.guests.size() - most_guests);
  if (use.is_snapshot)
    line += ", of which some are of a snapshot";
  return line + (use.guests.size() > 1 ? ": at most one of them has the right content\n"
                                       : " and by something else: only one use is right\n");
}

}  // namespace

std::string shared_clusters_text(const finding::Findings& findings) {
  std::string out;
  std::size_t lines = 0;
  for (const Use& use : uses_of(findings)) {
    if (++lines <= most_lines)
      out += use_line(use);
  }
  for (const Finding& finding : findings) {
    if (finding.code == Code::orphan_content && ++lines <= most_lines)
      out += fmt::format(
          "guest {:#x}-{:#x} may be in unreferenced host {:#x}-{:#x}: compare it with what the "
          "guest should see\n",
          finding.guest.begin.value, finding.guest.end.value, finding.host.begin.value,
          finding.host.end.value);
  }
  if (lines > most_lines)
    out += fmt::format("{} more such lines; 'coldchain check --list' has them all\n",
                       lines - most_lines);
  return out;
}

}  // namespace coldchain::report
