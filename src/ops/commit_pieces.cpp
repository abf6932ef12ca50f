// SPDX-License-Identifier: MIT
#include "commit_pieces.hpp"

#include "extents.hpp"
#include "zeroes.hpp"

#include <algorithm>
#include <optional>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

using analysis::Extent;

class CommitPieceMaker {
 public:
  CommitPieceMaker(const CommitView& view, const PieceConsumer& consumer)
      : view_(view),
        joiner_(consumer, *view.chain),
        base_layer_(view.base_chain->layers().front()),
        geometry_(base_layer_.mapping->geometry()),
        has_zero_flag_(base_layer_.qcow2().header().version >= 3),
        base_end_{view.base_chain->guest_size()},
        end_{std::max(view.chain->guest_size(), base_end_.value)},
        entries_(base_layer_),
        below_(*view.base_chain, view.workers) {
    if (const graph::Node* backing = base_layer_.node->backing())
      below_end_.value = backing->guest_size();
  }

  Result<void> take(const Extent& extent) {
    Extent rest = extent;
    while (!rest.guest.empty()) {
      GuestRange part{rest.guest.begin, TRY(end_of_unchanged(rest))};
      if (part.empty()) {
        const GuestOffset cluster_end = end_of_cluster(rest.guest.begin);
        part.end = std::min(cluster_end, rest.guest.end);
        parts_.push_back(clip(rest, part));
        if (part.end == cluster_end)
          TRY(settle_cluster());
      }
      rest = clip(rest, {part.end, rest.guest.end});
    }
    return {};
  }

  // Where the top's disk ends inside a cluster of a larger base, that is filled up by the base.
  Result<void> finish() {
    MapCursor rest(*view_.base_chain, view_.workers);
    while (!parts_.empty()) {
      const GuestOffset at = parts_.back().guest.end;
      const GuestRange open{at, end_of_cluster({at.value - 1})};
      Extent extent = clip(TRY(rest.at(at)), open);
      extent.layer += static_cast<std::uint32_t>(view_.base);
      TRY(take(extent));
    }
    return joiner_.finish();
  }

 private:
  struct Grain {
    GuestRange guest;
    std::optional<PieceKind> kind;  // nothing: stays as it is
  };

  [[nodiscard]] GuestOffset end_of_cluster(GuestOffset offset) const {
    return {std::min(align_down(offset.value, geometry_.cluster_size()) + geometry_.cluster_size(),
                     end_.value)};
  }

  // Where the whole clusters end that begin with `extent` and stay as they are: by the stretch, so
  // that the time does not go with the size of the disk.
  Result<GuestOffset> end_of_unchanged(const Extent& extent) {
    const GuestOffset begin = extent.guest.begin;
    GuestOffset end = extent.guest.end;
    if (!is_aligned(begin.value, geometry_.cluster_size()))
      return begin;
    if (view_.is_above(extent)) {
      if (!reads_as_zeros(extent) || extent.is_lost())
        return begin;
      const Extent shown = TRY(below_.at(begin));
      if (!reads_as_zeros(shown) || shown.is_lost())
        return begin;
      end = std::min(end, shown.guest.end);
      if (uncovers({begin, end}))
        end = std::max(begin, base_end_);
    }
    return end == end_ ? end : std::max(begin, {align_down(end.value, geometry_.cluster_size())});
  }

  // Whether what is below the base shows behind its end once that grows.
  [[nodiscard]] bool uncovers(GuestRange guest) const {
    return guest.end > base_end_ && std::max(guest.begin, base_end_) < below_end_;
  }

  Result<void> settle_cluster() {
    const GuestRange cluster{parts_.front().guest.begin, parts_.back().guest.end};
    const bool has_any = std::any_of(parts_.begin(), parts_.end(),
                                     [&](const Extent& part) { return view_.is_above(part); });
    if (has_any) {
      const EntryCursor::Entry entry = TRY(entries_.at(cluster.begin));
      const bool is_shared = entry.cluster.host_offset().value != 0 && !entry.cluster.is_copied();
      const bool is_split =
          geometry_.subclusters_per_cluster() > 1 && !entry.cluster.is_compressed();
      TRY(judge(cluster, entry, is_split));
      const bool must_copy = std::any_of(grains_.begin(), grains_.end(), [](const Grain& grain) {
        return grain.kind == PieceKind::copy;
      });
      if (is_split && is_shared && must_copy)
        grains_ = {{cluster, PieceKind::copy}};
      for (const Grain& grain : grains_)
        TRY(hand_out(grain));
    }
    parts_.clear();
    return {};
  }

  Result<void> judge(GuestRange cluster, const EntryCursor::Entry& entry, bool is_split) {
    grains_.clear();
    const std::uint64_t size = is_split ? geometry_.subcluster_size() : geometry_.cluster_size();
    base_parts_.clear();
    for (GuestOffset at = cluster.begin; at < cluster.end;) {
      base_parts_.push_back(clip(TRY(below_.at(at)), {at, cluster.end}));
      at = base_parts_.back().guest.end;
    }
    for (GuestRange grain = cluster; grain.begin < cluster.end; grain.begin = grain.end) {
      grain.end = std::min(cluster.end, grain.begin + size);
      const auto number = static_cast<unsigned>((grain.begin - cluster.begin) / size);
      grains_.push_back({grain, kind_of(grain, entry.place_of(number))});
    }
    return {};
  }

  [[nodiscard]] std::optional<PieceKind> kind_of(GuestRange grain, Place place) const {
    bool has_above = false;
    bool has_data = false;
    bool is_all_above = true;
    bool is_shown_anyway = true;
    for (const Extent& part : parts_) {
      const GuestRange guest = clip(part, grain).guest;
      if (guest.empty())
        continue;
      if (!view_.is_above(part)) {
        is_all_above = false;
        continue;
      }
      has_above = true;
      has_data = has_data || !reads_as_zeros(part);
      is_shown_anyway = is_shown_anyway && shows_zeros(guest, place) && !part.is_lost();
    }
    if (!has_above || (!has_data && is_shown_anyway))
      return std::nullopt;
    if (!has_data && is_all_above && has_zero_flag_)
      return PieceKind::zero;
    return place == Place::own ? PieceKind::overwrite : PieceKind::copy;
  }

  // Whether the base, with the disk that it will have, reads as zeros there.
  [[nodiscard]] bool shows_zeros(GuestRange guest, Place place) const {
    if (place != Place::none)
      return place == Place::zero;
    return !uncovers(guest) &&
           std::all_of(base_parts_.begin(), base_parts_.end(), [&](const Extent& part) {
             return clip(part, guest).guest.empty() || (reads_as_zeros(part) && !part.is_lost());
           });
  }

  Result<void> hand_out(const Grain& grain) {
    if (grain.kind != PieceKind::overwrite)
      return grain.kind ? joiner_.add(*grain.kind, grain.guest, parts_) : Result<void>{};
    for (const Extent& part : parts_) {
      const GuestRange guest = clip(part, grain.guest).guest;
      if (view_.is_above(part) && !guest.empty())
        TRY(joiner_.add(PieceKind::overwrite, guest, {part}));
    }
    return {};
  }

  const CommitView& view_;
  PieceJoiner joiner_;
  const graph::Layer& base_layer_;
  qcow2::Geometry geometry_;
  bool has_zero_flag_;
  GuestOffset base_end_;   // of its disk as it is
  GuestOffset end_;        // and as it will be
  GuestOffset below_end_;  // of the disk below it
  EntryCursor entries_;
  MapCursor below_;                 // what the base shows
  std::vector<Extent> parts_;       // of the cluster that is not whole yet
  std::vector<Extent> base_parts_;  // of the same, as the base shows it
  std::vector<Grain> grains_;
};

// Of a raw image every byte has its place. What lies behind its end is zeros already.
Result<void> for_each_raw_piece(const CommitView& view, const PieceConsumer& consumer) {
  PieceJoiner joiner(consumer, *view.chain);
  const GuestOffset end{view.base_chain->guest_size()};
  const auto take = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents) {
      const bool is_behind =
          reads_as_zeros(extent) && !extent.is_lost() && extent.guest.begin >= end;
      if (view.is_above(extent) && !is_behind)
        TRY(joiner.add(PieceKind::overwrite, extent.guest, {extent}));
    }
    return {};
  };
  TRY(map_with_zeroes(*view.chain, {{0}, {view.chain->guest_size()}}, view.zeroes, view.workers,
                      take));
  return joiner.finish();
}

}  // namespace

Result<void> for_each_commit_piece(const CommitView& view, const PieceConsumer& consumer) {
  if (!view.base_chain->layers().front().mapping)
    return for_each_raw_piece(view, consumer);
  CommitPieceMaker maker(view, consumer);
  const auto take = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents)
      TRY(maker.take(extent));
    return {};
  };
  TRY(map_with_zeroes(*view.chain, {{0}, {view.chain->guest_size()}}, view.zeroes, view.workers,
                      take));
  return maker.finish();
}

}  // namespace coldchain::ops
