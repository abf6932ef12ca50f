// SPDX-License-Identifier: MIT
#include "pieces.hpp"

#include "extents.hpp"
#include "zeroes.hpp"

#include <algorithm>
#include <optional>
#include <span>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using analysis::Extent;

// What is copied in one piece: bounds its list of extents, and how far apart safe points are.
constexpr std::uint64_t most_piece_bytes = 8ULL << 20;

// What must happen to an extent if nothing else shares its cluster: nothing, if the image has it
// itself.
struct Needs {
  bool copy = false;  // data of a layer that goes
  bool zero = false;  // zeros that would no longer hide the base
  bool keep = false;  // of the base, or below it

  friend Needs operator|(Needs a, Needs b) {
    return {a.copy || b.copy, a.zero || b.zero, a.keep || b.keep};
  }
};

enum class Filling { nothing, zero, copy };

// Where some of a cluster comes from the base, zeros in it cannot be told but by a copy.
Filling filling_of(Needs needs) {
  if (needs.copy || (needs.zero && needs.keep))
    return Filling::copy;
  return needs.zero ? Filling::zero : Filling::nothing;
}

// Where guest bytes that a layer has lie, if that says what they are.
struct FilePlace {
  io::FileIdentity file;
  HostOffset offset;

  friend bool operator==(const FilePlace&, const FilePlace&) = default;
};

std::optional<FilePlace> file_place_of(const graph::Chain& chain, const Extent& extent) {
  if (!extent.present || !extent.has_host || extent.compressed || extent.zero)
    return std::nullopt;
  return FilePlace{chain.layers()[extent.layer].data_file().status().identity, extent.host};
}

// What a chain and the one that takes the place of all but its top read differently.
class Comparison {
 public:
  Comparison(const graph::Chain& now, const graph::Chain& then, std::uint64_t grain,
             unsigned workers)
      : now_(now),
        then_(then),
        reader_now_(now),
        reader_then_(then),
        grain_(grain),
        cursor_then_(then, workers) {}

  // Calls `take` for the parts of `extent`, which lie in one cluster each or are alike.
  template <class Take>
  Result<void> for_each_part(const Extent& extent, const Take& take) {
    for (GuestOffset at = extent.guest.begin; at < extent.guest.end;) {
      const Extent other = TRY(cursor_then_.at(at));
      const Extent part = clip(extent, {at, std::min(extent.guest.end, other.guest.end)});
      const bool is_same_place =
          file_place_of(now_, part) &&
          file_place_of(now_, part) == file_place_of(then_, clip(other, part.guest));
      if (!is_same_place && (part.is_lost() || other.is_lost()))
        TRY(take(part, Needs{.copy = !reads_as_zeros(part), .zero = reads_as_zeros(part)}));
      else if (is_same_place || (reads_as_zeros(part) && reads_as_zeros(other)))
        TRY(take(part, is_same_place ? Needs{.keep = true} : Needs{}));
      else
        TRY(compare(part, reads_as_zeros(other), take));
      at = part.guest.end;
    }
    return {};
  }

 private:
  static constexpr std::uint64_t most_compared_bytes = 1ULL << 20;

  template <class Take>
  Result<void> compare(const Extent& extent, bool then_is_zero, const Take& take) {
    for (GuestRange some = extent.guest; some.begin < extent.guest.end; some.begin = some.end) {
      some.end = std::min(extent.guest.end, some.begin + most_compared_bytes);
      TRY(read(reader_now_, reads_as_zeros(extent), some, bytes_now_));
      TRY(read(reader_then_, then_is_zero, some, bytes_then_));
      for (GuestRange grain = some; grain.begin < some.end; grain.begin = grain.end) {
        grain.end = std::min(some.end, GuestOffset{align_down(grain.begin.value, grain_) + grain_});
        TRY(take(clip(extent, grain), needs_of(extent, grain.begin - some.begin, grain.size())));
      }
    }
    return {};
  }

  Needs needs_of(const Extent& extent, std::uint64_t from, std::uint64_t size) const {
    const auto part = [&](const Bytes& bytes) { return ByteView(bytes).subspan(from, size); };
    const ByteView now = part(bytes_now_);
    const ByteView then = part(bytes_then_);
    if (std::equal(now.begin(), now.end(), then.begin()))
      return {.keep = true};
    return {.copy = !reads_as_zeros(extent), .zero = reads_as_zeros(extent)};
  }

  static Result<void> read(graph::Reader& reader, bool is_zero, GuestRange range, Bytes& bytes) {
    bytes.assign(range.size(), std::byte{0});
    return is_zero ? Result<void>{} : reader.read(range.begin, bytes);
  }

  const graph::Chain& now_;
  const graph::Chain& then_;
  graph::Reader reader_now_;
  graph::Reader reader_then_;
  std::uint64_t grain_;
  MapCursor cursor_then_;  // what is behind the end of that chain reads as zeros
  Bytes bytes_now_;
  Bytes bytes_then_;
};

class PieceMaker {
 public:
  PieceMaker(const graph::Chain& chain, const Below& below, unsigned workers,
             const PieceConsumer& consumer)
      : chain_(chain),
        base_(below.base),
        stays_(below.stays),
        is_snapshot_(below.is_snapshot),
        compressed_(below.compressed),
        joiner_(consumer, chain),
        entries_(chain.layers().front()),
        geometry_(chain.layers().front().mapping->geometry()),
        has_zero_flag_(chain.layers().front().qcow2().header().version >= 3) {
    if (below.onto != nullptr)
      comparison_.emplace(chain, *below.onto, geometry_.subcluster_size(), workers);
  }

  Result<void> take(std::span<const Extent> extents) {
    for (const Extent& extent : extents)
      TRY(take(extent));
    return {};
  }

  Result<void> finish() { return joiner_.finish(); }

 private:
  Result<void> take(const Extent& extent) {
    if (comparison_ && extent.present && extent.layer == 0)
      return take(extent, Needs{});
    if (comparison_)
      return comparison_->for_each_part(
          extent, [&](const Extent& part, Needs needs) { return take(part, needs); });
    // What is beyond the end of the base needs no zeros: two parts, where it ends in the extent.
    const GuestOffset seam = is_behind_short_layer(extent) ? end_of_base() : extent.guest.begin;
    for (const GuestRange part :
         {GuestRange{extent.guest.begin, std::min(seam, extent.guest.end)},
          GuestRange{std::max(seam, extent.guest.begin), extent.guest.end}}) {
      if (!part.empty())
        TRY(take(clip(extent, part), needs_of(extent, part)));
    }
    return {};
  }

  Result<void> take(Extent extent, Needs needs) {
    while (!extent.guest.empty()) {
      if (cluster_.empty()) {
        if (const GuestOffset end = end_of_whole_clusters(extent.guest); end > extent.guest.begin) {
          const GuestRange whole{extent.guest.begin, end};
          TRY(emit(filling_of(needs), whole, std::vector{clip(extent, whole)}));
          extent = clip(extent, {end, extent.guest.end});
          continue;
        }
      }
      const GuestOffset cluster_end = end_of_cluster(extent.guest.begin);
      const GuestRange part{extent.guest.begin, std::min(cluster_end, extent.guest.end)};
      cluster_.push_back({clip(extent, part), needs});
      if (part.end == cluster_end)
        TRY(settle_cluster());
      extent = clip(extent, {part.end, extent.guest.end});
    }
    return {};
  }

  [[nodiscard]] GuestOffset end_of_base() const {
    return {base_ == 0 ? 0 : chain_.layers()[base_].guest_size};
  }

  // Reads as zeros since a layer that goes ends before it.
  [[nodiscard]] bool is_behind_short_layer(const Extent& extent) const {
    return !extent.present && extent.past_end && extent.layer + 1 < base_;
  }

  [[nodiscard]] Needs needs_of(const Extent& extent, GuestRange part) const {
    Needs needs;
    const bool goes = base_ == 0 || extent.layer < base_;
    if (extent.present && extent.layer == 0)
      return needs;
    if (extent.present && !goes)
      needs.keep = true;
    else if (extent.present && !extent.zero)
      needs.copy = true;
    else if (extent.present)
      // Lost data becomes explicit zeros, so that the plan lists it.
      needs.zero = base_ != 0 || stays_ || extent.is_lost();
    else
      needs.zero = is_behind_short_layer(extent) && part.begin < end_of_base();
    return needs;
  }

  [[nodiscard]] GuestOffset end_of_cluster(GuestOffset offset) const {
    return {std::min(align_down(offset.value, geometry_.cluster_size()) + geometry_.cluster_size(),
                     chain_.guest_size())};
  }

  // Of the clusters that begin where `range` does and lie in it whole.
  [[nodiscard]] GuestOffset end_of_whole_clusters(GuestRange range) const {
    if (!is_aligned(range.begin.value, geometry_.cluster_size()))
      return range.begin;
    return range.end.value == chain_.guest_size()
               ? range.end
               : GuestOffset{align_down(range.end.value, geometry_.cluster_size())};
  }

  struct Part {
    Extent extent;
    Needs needs;
  };

  [[nodiscard]] Filling filling_of_parts(GuestRange range) const {
    Needs needs;
    for (const Part& part : cluster_) {
      if (!clip(part.extent, range).guest.empty())
        needs = needs | part.needs;
    }
    return filling_of(needs);
  }

  Result<void> settle_cluster() {
    const GuestRange cluster{cluster_.front().extent.guest.begin, cluster_.back().extent.guest.end};
    const std::uint64_t size = geometry_.subcluster_size();
    const bool is_whole = geometry_.subclusters_per_cluster() == 1 ||
                          (compressed_ == Compressed::recompress && may_be_recompressed(cluster)) ||
                          (filling_of_parts(cluster) == Filling::copy && TRY(is_shared(cluster)));
    for (GuestRange grain = cluster; grain.begin < cluster.end; grain.begin = grain.end) {
      grain.end = is_whole ? cluster.end : std::min(cluster.end, grain.begin + size);
      TRY(emit(filling_of_parts(grain), grain, sources_in(grain)));
    }
    cluster_.clear();
    return {};
  }

  // Whether a cluster with subclusters gets something that was compressed, and no subcluster of it
  // is the image's own or comes from what is below it afterwards.
  [[nodiscard]] bool may_be_recompressed(GuestRange cluster) const {
    for (GuestRange grain = cluster; grain.begin < cluster.end; grain.begin = grain.end) {
      grain.end = std::min(cluster.end, grain.begin + geometry_.subcluster_size());
      const auto stays = [&](const Part& part) {
        return part.extent.present && !clip(part.extent, grain).guest.empty();
      };
      if (filling_of_parts(grain) == Filling::nothing &&
          std::any_of(cluster_.begin(), cluster_.end(), stays))
        return false;
    }
    return kind_of_copy(cluster, sources_in(cluster)) == PieceKind::recompress;
  }

  [[nodiscard]] std::vector<Extent> sources_in(GuestRange range) const {
    std::vector<Extent> sources;
    for (const Part& part : cluster_) {
      if (const Extent source = clip(part.extent, range); !source.guest.empty())
        sources.push_back(source);
    }
    return sources;
  }

  // Whether the image has a host cluster there that a snapshot shares: a copy of it takes its
  // place, whole.
  [[nodiscard]] Result<bool> is_shared(GuestRange cluster) {
    const qcow2::L2Entry entry = TRY(entries_.at(cluster.begin)).cluster;
    return entry.host_offset().value != 0 && (is_snapshot_ || !entry.is_copied());
  }

  Result<void> emit(Filling filling, GuestRange range, const std::vector<Extent>& sources) {
    if (filling == Filling::nothing)
      return {};
    if (filling == Filling::zero && has_zero_flag_)
      return joiner_.add(PieceKind::zero, range, sources);
    if (filling == Filling::copy && may_stay_compressed(sources, range))
      return emit_compressed(range, sources);
    return joiner_.add(kind_of_copy(range, sources), range, sources);
  }

  [[nodiscard]] bool is_whole_clusters(GuestRange range) const {
    return is_aligned(range.begin.value, geometry_.cluster_size()) &&
           (is_aligned(range.end.value, geometry_.cluster_size()) ||
            range.end.value == chain_.guest_size());
  }

  [[nodiscard]] PieceKind kind_of_copy(GuestRange range, const std::vector<Extent>& sources) const {
    const bool is_compressed = std::any_of(
        sources.begin(), sources.end(),
        [](const Extent& source) { return source.compressed && !reads_as_zeros(source); });
    return compressed_ == Compressed::recompress && is_compressed && is_whole_clusters(range)
               ? PieceKind::recompress
               : PieceKind::copy;
  }

  [[nodiscard]] bool may_stay_compressed(const std::vector<Extent>& sources,
                                         GuestRange range) const {
    if (compressed_ == Compressed::unpack || sources.size() != 1 || !sources.front().compressed ||
        reads_as_zeros(sources.front()) || !is_aligned(range.begin.value, geometry_.cluster_size()))
      return false;
    const qcow2::Header& from = chain_.layers()[sources.front().layer].qcow2().header();
    const qcow2::Header& to = chain_.layers().front().qcow2().header();
    return from.cluster_bits == to.cluster_bits && from.compression_type() == to.compression_type();
  }

  // Whole clusters that take less room so. What the last one has behind the end of the disk would
  // come along; what the file has no bytes of cannot be unpacked, which is an error.
  Result<void> emit_compressed(GuestRange range, const std::vector<Extent>& sources) {
    const graph::Layer& layer = chain_.layers()[sources.front().layer];
    const HostOffset end_of_file{
        align_up(layer.qcow2().file().size(), qcow2::compressed_sector_size)};
    qcow2::Mapping::Cursor cursor;
    for (GuestRange part = range; part.begin < range.end; part.begin = part.end) {
      part.end = std::min(range.end, part.begin + geometry_.cluster_size());
      const HostRange sectors = TRY(layer.mapping->locate(part.begin, cursor)).compressed.sectors();
      const bool stays = part.size() == geometry_.cluster_size() &&
                         sectors.size() < geometry_.cluster_size() && sectors.end <= end_of_file;
      TRY(joiner_.add(stays ? PieceKind::compressed : kind_of_copy(part, sources), part, sources));
    }
    return {};
  }

  const graph::Chain& chain_;
  std::size_t base_;
  bool stays_;
  bool is_snapshot_;
  Compressed compressed_;
  PieceJoiner joiner_;
  EntryCursor entries_;
  std::optional<Comparison> comparison_;  // where another chain is to be below
  qcow2::Geometry geometry_;
  bool has_zero_flag_;
  std::vector<Part> cluster_;  // of the cluster that is not whole yet
};

}  // namespace

Result<void> PieceJoiner::add(PieceKind kind, GuestRange range,
                              const std::vector<Extent>& sources) {
  const bool has_sources = kind != PieceKind::zero && kind != PieceKind::reserve;
  while (!range.empty()) {
    const bool goes_on = piece_.guest.end == range.begin && piece_.kind == kind &&
                         (!has_sources || piece_.guest.size() < most_piece_bytes);
    if (!goes_on) {
      TRY(hand_out());
      if (counts_ && has_sources && sources.size() == 1 && reads_as_zeros(sources.front()) &&
          !sources.front().is_lost()) {
        const std::uint64_t whole = align_down(range.size(), most_piece_bytes);
        piece_ = {{range.begin, range.begin + whole}, kind, {sources.front()}};
        TRY(hand_out());
        range.begin = range.begin + whole;
      }
      piece_ = {.guest = {range.begin, range.begin}, .kind = kind};
    }
    GuestRange part = range;
    if (has_sources)
      part.end = std::min(part.end, part.begin + (most_piece_bytes - piece_.guest.size()));
    piece_.guest.end = part.end;
    for (const Extent& source : sources) {
      Extent clipped = clip(source, part);
      if (clipped.guest.empty())
        continue;
      if (clipped.is_lost()) {
        unreadable_.add(std::span(&clipped, 1));
        piece_.lost.push_back(clipped);
      }
      if (!has_sources)
        continue;
      if (!piece_.sources.empty() && analysis::continues(piece_.sources.back(), clipped))
        piece_.sources.back().guest.end = clipped.guest.end;
      else
        piece_.sources.push_back(clipped);
    }
    range.begin = part.end;
  }
  return {};
}

Result<void> PieceJoiner::hand_out() {
  if (!piece_.guest.empty()) {
    if (left_-- == 0)
      return fail(
          ErrorCode::too_large,
          "there are more pieces to be copied than the files of the chain have storage for");
    TRY(consumer_(piece_));
  }
  piece_ = {};
  return {};
}

Result<void> PieceJoiner::finish() {
  TRY(hand_out());
  return unreadable_.empty() || chain_.unreadable_are_zeros() ? Result<void>{}
                                                              : fail(unreadable_error());
}

Error PieceJoiner::unreadable_error() const {
  constexpr std::size_t most_named = 8;
  std::string ranges;
  for (const analysis::UnreadableRange& range : unreadable_.ranges()) {
    if (&range - unreadable_.ranges().data() == most_named)
      break;
    ranges +=
        fmt::format("{}{:#x}-{:#x} of {} ({})", ranges.empty() ? "" : ", ", range.guest.begin.value,
                    range.guest.end.value, to_terminal(chain_.layers()[range.layer].node->filename),
                    analysis::to_string(range.reason));
  }
  const std::uint64_t more = unreadable_.ranges().size() + unreadable_.omitted() -
                             std::min(unreadable_.ranges().size(), most_named);
  return {
      ErrorCode::corrupt,
      fmt::format("{} bytes of guest data that the change needs cannot be read: guest range {}"
                  "{}; 'coldchain check --list' lists the damage; --unreadable=zeros takes "
                  "what cannot be read as zeros",
                  unreadable_.bytes(), ranges, more == 0 ? "" : fmt::format(" and {} more", more)),
      0};
}

Result<void> for_each_piece(const graph::Chain& chain, GuestRange range, const Below& below,
                            unsigned workers, const PieceConsumer& consumer) {
  PieceMaker maker(chain, below, workers, consumer);
  TRY(map_with_zeroes(chain, range, below.zeroes, workers,
                      [&](std::span<const Extent> extents) { return maker.take(extents); }));
  return maker.finish();
}

Result<void> for_each_compressed(const graph::Chain& chain, const Piece& piece,
                                 const CompressedConsumer& take) {
  for (const Extent& source : piece.sources) {
    const graph::Layer& layer = chain.layers()[source.layer];
    const std::uint64_t cluster_size = layer.mapping->geometry().cluster_size();
    qcow2::Mapping::Cursor cursor;
    for (GuestOffset at = source.guest.begin; at < source.guest.end; at = at + cluster_size) {
      const qcow2::Location location = TRY(layer.mapping->locate(at, cursor));
      TRY(take({at, &layer, location.compressed}));
    }
  }
  return {};
}

}  // namespace coldchain::ops
