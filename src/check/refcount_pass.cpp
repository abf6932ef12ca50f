// SPDX-License-Identifier: MIT
// Tests the refcount table and its blocks, and in the end every stored refcount against the
// references that were counted. QEMU block/qcow2-refcount.c: check_refblocks, compare_refcounts.
// Gathers the claims of the refcount structures, the leaks, the image end and, for the search for
// lost tables, clusters to which nothing refers.
#include "survey.hpp"

#include <bit>

#include <coldchain/qcow2/tables.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Finding;
using finding::Structure;

// So many leaked clusters are looked at for lost tables: more would take as long as reading a disk.
constexpr std::size_t most_orphans = 1 << 16;

Finding table_finding(const Survey& survey, Code code, std::uint64_t index, std::uint64_t entry) {
  const HostOffset at{survey.image.header().refcount_table_offset + index * sizeof(be64)};
  return {.code = code,
          .structure = Structure::refcount_table,
          .index = index,
          .host = {at, at + sizeof(be64)},
          .entry = entry};
}

// Compares one cluster whose stored and counted refcounts are known to differ, or not to be simple.
class Comparison {
 public:
  explicit Comparison(Survey& survey) : survey_(survey) {}

  // Clusters to which nothing refers, and which all are counted once, or all have no count that
  // can be read.
  void look_at_run(std::uint64_t first, std::uint64_t count, bool is_readable) {
    Counts& counts = survey_.result.counts;
    (is_readable ? counts.leaks : counts.check_errors) += count;
    for (std::uint64_t i = 0; is_readable && i < count && has_room_for_orphans(); ++i)
      survey_.orphans.push_back(first + i);
    if (is_readable)
      highest_ = first + count - 1;
    survey_.result.findings.add(
        {.code = is_readable ? Code::cluster_leaked : Code::refcount_unreadable,
         .structure = Structure::host_cluster,
         .index = first,
         .count = count,
         .host = survey_.range_of(first, count),
         .found = is_readable ? 1U : 0U});
  }

  void look_at(std::uint64_t cluster) {
    const std::optional<std::uint64_t> stored = survey_.stored.at(cluster, cursor_);
    const std::uint64_t counted = survey_.result.claims.at(cluster);
    if (!stored) {
      ++survey_.result.counts.check_errors;
      add(Code::refcount_unreadable, cluster, counted, 0);
      return;
    }
    if (*stored != 0 || counted != 0)
      highest_ = cluster;
    if (*stored < counted) {
      ++survey_.result.counts.corruptions;
      add(Code::refcount_too_low, cluster, counted, *stored);
    } else if (*stored > counted) {
      ++survey_.result.counts.leaks;
      if (counted == 0 && has_room_for_orphans())
        survey_.orphans.push_back(cluster);
      add(Code::cluster_leaked, cluster, counted, *stored);
    }
  }

  // Where all of a word agrees.
  void note_used(std::uint64_t cluster) { highest_ = cluster; }

  [[nodiscard]] std::uint64_t highest() const { return highest_; }

 private:
  void add(Code code, std::uint64_t cluster, std::uint64_t counted, std::uint64_t stored) {
    survey_.result.findings.add({.code = code,
                                 .structure = Structure::host_cluster,
                                 .index = cluster,
                                 .host = survey_.range_of(cluster),
                                 .expected = counted,
                                 .found = stored});
  }

  [[nodiscard]] bool has_room_for_orphans() const { return survey_.orphans.size() < most_orphans; }

  Survey& survey_;
  StoredRefcounts::Cursor cursor_;
  std::uint64_t highest_ = 0;
};

}  // namespace

void check_refcount_blocks(Survey& survey) {
  const qcow2::Header& header = survey.image.header();
  survey.claim(header.refcount_table_offset, header.refcount_table_clusters * header.cluster_size(),
               Structure::refcount_table, 0);
  if (survey.stored.is_partial())
    survey.note_not_walked(
        fmt::format("refcount blocks that are named again, of more than {} counts",
                    StoredRefcounts::most_repeated_counts));
  for (const StoredRefcounts::Unread& unread : survey.stored.unread())
    survey.result.findings.add(
        {.code = Code::refcount_table_unreadable,
         .detail = unread.error,
         .structure = unread.is_block ? Structure::refcount_block : Structure::refcount_table,
         .index = unread.index,
         .host = unread.host});
  for (std::uint64_t i = 0; i < survey.stored.table().size(); ++i) {
    const std::uint64_t raw = survey.stored.table()[i];
    const std::uint64_t offset = raw & qcow2::refcount_block_mask;
    if ((raw & qcow2::refcount_table_reserved_mask) != 0) {
      survey.corruption(table_finding(survey, Code::refcount_table_entry_reserved, i, raw));
    } else if (!is_aligned(offset, survey.geometry.cluster_size())) {
      survey.corruption(table_finding(survey, Code::refcount_block_unaligned, i, raw));
    } else if (survey.cluster_of(offset) >=
               std::max(survey.result.file_clusters, survey.result.claims.end())) {
      survey.corruption(table_finding(survey, Code::refcount_block_past_end, i, raw));
    } else if (offset != 0) {
      survey.claim(offset, survey.geometry.cluster_size(), Structure::refcount_block, i);
      if (const std::uint64_t counted = survey.result.claims.at(survey.cluster_of(offset));
          counted != 1) {
        Finding shared = table_finding(survey, Code::refcount_block_shared, i, raw);
        shared.found = counted;
        survey.corruption(std::move(shared));
      }
    }
  }
}

void compare_refcounts(Survey& survey) {
  const std::uint64_t clusters = std::max(survey.result.file_clusters, survey.result.claims.end());
  // Behind the last refcount and the last reference there is nothing to compare, however long the
  // file says that it is.
  const std::uint64_t end =
      std::min(clusters, std::max(survey.stored.end(), survey.result.claims.end()));
  Comparison comparison(survey);
  // The next word that has a claim or a count. It is looked for only when it has been reached.
  std::uint64_t next_claimed = 0;
  std::uint64_t next_stored = 0;
  for (std::uint64_t first = 0; first < end; first += 64) {
    const StoredRefcounts::Word stored = survey.stored.word(first);
    const Claims::Word claimed = survey.result.claims.word(first);
    const bool is_unclaimed = claimed.claimed == 0;
    if (survey.stored.is_unread(first)) {
      if (!is_unclaimed)
        comparison.note_used(first + 63 -
                             static_cast<std::uint64_t>(std::countl_zero(claimed.claimed)));
      continue;
    }
    if (is_unclaimed && (stored.one | stored.more | stored.unreadable) == 0) {
      if (next_claimed < first + 64)
        next_claimed = survey.result.claims.next_used(first + 64);
      if (next_stored < first + 64)
        next_stored = survey.stored.next_used(first + 64);
      first = align_down(std::min(next_claimed, next_stored), 64) - 64;
      continue;
    }
    if (is_unclaimed && first + 64 <= end && ~stored.one == 0) {
      comparison.look_at_run(first, 64, true);
      continue;
    }
    if (is_unclaimed && ~stored.unreadable == 0) {
      // All of the block, as far as nothing refers to it: there may be very many.
      if (next_claimed < first + 64)
        next_claimed = survey.result.claims.next_used(first + 64);
      const std::uint64_t block_end = align_down(first, survey.stored.clusters_per_block()) +
                                      survey.stored.clusters_per_block();
      const std::uint64_t until = std::min({end, block_end, align_down(next_claimed, 64)});
      comparison.look_at_run(first, until - first, false);
      first = align_down(until - 1, 64);
      continue;
    }
    std::uint64_t differing =
        (stored.one ^ claimed.claimed) | stored.more | claimed.shared | stored.unreadable;
    const std::uint64_t beyond = first + 64 > end ? ~std::uint64_t{0} << (end - first) : 0;
    const std::uint64_t agreeing = claimed.claimed & ~differing;
    differing &= ~beyond;
    // In order, so that the highest cluster in use comes last.
    while (differing != 0) {
      comparison.look_at(first + static_cast<std::uint64_t>(std::countr_zero(differing)));
      differing &= differing - 1;
    }
    if (agreeing != 0)
      comparison.note_used(
          std::max(comparison.highest(),
                   first + 63 - static_cast<std::uint64_t>(std::countl_zero(agreeing))));
  }
  survey.result.counts.image_end_offset = (comparison.highest() + 1)
                                          << survey.geometry.cluster_bits();
  if (survey.stored.end() > clusters)
    survey.result.findings.add({.code = Code::refcount_past_end,
                                .structure = Structure::host_cluster,
                                .index = clusters,
                                .host = survey.range_of(clusters, survey.stored.end() - clusters)});
}

}  // namespace coldchain::check
