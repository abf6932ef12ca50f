// SPDX-License-Identifier: MIT
#include "allocation_pieces.hpp"

#include "extents.hpp"

#include <algorithm>
#include <optional>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

using analysis::Extent;

class AllocationPieceMaker {
 public:
  AllocationPieceMaker(const AllocationView& view, const PieceConsumer& consumer,
                       const std::function<void(HostRange)>& own)
      : joiner_(consumer, *view.chain, view.counts),
        own_(own),
        geometry_(view.chain->layers().front().mapping->geometry()),
        marks_zeros_(!view.writes_zeros &&
                     view.chain->layers().front().qcow2().header().version >= 3),
        end_(view.range.end),
        entries_(view.chain->layers().front()) {}

  Result<void> take(Extent extent) {
    while (!extent.guest.empty()) {
      if (const GuestRange empty = clusters_without_table(extent.guest); !empty.empty()) {
        TRY(joiner_.add(kind_of_empty(extent), empty, {clip(extent, empty)}));
        extent = clip(extent, {empty.end, extent.guest.end});
        continue;
      }
      const GuestOffset cluster_end = end_of_cluster(extent.guest.begin);
      const GuestRange part{extent.guest.begin, std::min(cluster_end, extent.guest.end)};
      parts_.push_back(clip(extent, part));
      if (part.end == cluster_end)
        TRY(settle_cluster());
      extent = clip(extent, {part.end, extent.guest.end});
    }
    return {};
  }

  Result<void> finish() { return joiner_.finish(); }

 private:
  // Whole clusters that `range` begins with.
  [[nodiscard]] GuestRange clusters_without_table(GuestRange range) const {
    if (!parts_.empty())
      return {};
    const GuestOffset end = entries_.end_without_table(range);
    return {range.begin,
            end == end_ ? end : GuestOffset{align_down(end.value, geometry_.cluster_size())}};
  }

  [[nodiscard]] PieceKind kind_of_empty(const Extent& extent) const {
    return reads_as_zeros(extent) && marks_zeros_ ? PieceKind::reserve : PieceKind::copy;
  }

  [[nodiscard]] GuestOffset end_of_cluster(GuestOffset offset) const {
    return {std::min(align_down(offset.value, geometry_.cluster_size()) + geometry_.cluster_size(),
                     end_.value)};
  }

  Result<void> settle_cluster() {
    const GuestRange cluster{parts_.front().guest.begin, parts_.back().guest.end};
    const EntryCursor::Entry entry = TRY(entries_.at(cluster.begin));
    if (entry.cluster.has_own_cluster() && own_) {
      const HostOffset host = entry.cluster.host_offset();
      own_({host, host + geometry_.cluster_size()});
    }
    for (GuestRange grain = cluster; grain.begin < cluster.end; grain.begin = grain.end) {
      grain.end = std::min(cluster.end, grain.begin + geometry_.subcluster_size());
      const auto number =
          static_cast<unsigned>((grain.begin - cluster.begin) / geometry_.subcluster_size());
      if (const std::optional<PieceKind> kind = kind_of(grain, entry, number))
        TRY(joiner_.add(*kind, grain, parts_));
    }
    parts_.clear();
    return {};
  }

  // Nothing where it has its place.
  [[nodiscard]] std::optional<PieceKind> kind_of(GuestRange grain, const EntryCursor::Entry& entry,
                                                 unsigned number) const {
    const Place place = entry.place_of(number);
    if (place == Place::own ||
        (place == Place::zero && entry.cluster.has_own_cluster() && marks_zeros_))
      return std::nullopt;
    const bool is_zero = std::all_of(parts_.begin(), parts_.end(), [&](const Extent& part) {
      return clip(part, grain).guest.empty() || reads_as_zeros(part);
    });
    return is_zero && marks_zeros_ ? PieceKind::reserve : PieceKind::copy;
  }

  PieceJoiner joiner_;
  const std::function<void(HostRange)>& own_;
  qcow2::Geometry geometry_;
  bool marks_zeros_;
  GuestOffset end_;  // of the range
  EntryCursor entries_;
  std::vector<Extent> parts_;  // of the cluster that is not whole yet
};

}  // namespace

Result<void> for_each_allocation_piece(const AllocationView& view, const PieceConsumer& consumer,
                                       const std::function<void(HostRange)>& own) {
  AllocationPieceMaker maker(view, consumer, own);
  const auto take = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents)
      TRY(maker.take(extent));
    return {};
  };
  ExtentBudget budget(*view.chain);
  TRY(map_within(budget, *view.chain, view.range, view.workers, take));
  return maker.finish();
}

}  // namespace coldchain::ops
