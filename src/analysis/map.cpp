// SPDX-License-Identifier: MIT
// How it works. The range is cut into windows of so many clusters, and at the end of every layer.
// In a window the layers are asked from the top down, each once, for its runs; a bit per cluster
// tells what is taken already, and a layer gets only what those above it left open. So the cost is
// the layers' runs plus the clusters of the window, not their product. What nobody takes is the raw
// base's, or lies past the end of a shorter layer, or is absent.
#include "cut_streams.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>

#include <coldchain/analysis/map.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::analysis {

struct Mapper::Source {
  const graph::Layer* layer = nullptr;
  // The place of an encrypted cluster is of no use to a reader, so QEMU does not show it.
  bool shows_host = true;
  // For images with preallocated metadata: what of the file that holds the data is not a hole.
  bool looks_for_holes = false;
  std::vector<HostRange> data_ranges{};
  bool unreadable_are_zeros = false;
};

namespace {

using graph::Chain;
using graph::Layer;
using qcow2::Run;
using qcow2::RunKind;

// Clusters of the finest layer in a window: small enough to stay in the cache, large enough that
// one read of an L2 table serves it.
constexpr std::uint64_t clusters_per_window = 8192;

// Who writes to a smaller cluster gives storage to others, too, and they are holes no more.
constexpr std::uint64_t storage_unit = 4096;

// The smallest unit in which the tables of the layers speak that reach to `from`.
std::uint64_t granule_size(const Chain& chain, GuestOffset from) {
  std::uint64_t finest = 1ULL << 14;  // raw layers alone: windows of 128 MiB
  bool has_table = false;
  for (const Layer& layer : chain.layers()) {
    if (layer.guest_size <= from.value)
      break;  // what is below a shorter layer is not seen behind its end
    if (!layer.mapping)
      continue;
    const std::uint64_t size = layer.mapping->geometry().subcluster_size();
    finest = has_table ? std::min(finest, size) : size;
    has_table = true;
  }
  return finest;
}

Result<Mapper::Source> prepare(const Layer& layer, Mapper::Holes holes) {
  Mapper::Source source;
  source.layer = &layer;
  if (!layer.mapping)
    return source;
  const qcow2::Image& image = layer.qcow2();
  source.shows_host = image.header().crypt_method == 0;
  source.looks_for_holes = holes == Mapper::Holes::are_zeros && source.shows_host &&
                           image.data_file() != nullptr &&
                           (layer.is_written ? image.header().cluster_size() >= storage_unit
                                             : image.has_preallocated_metadata());
  if (source.looks_for_holes)
    source.data_ranges =
        TRY(io::data_ranges(*image.data_file(), {{0}, {image.data_file()->size()}}));
  return source;
}

// The first offset at or after `from` for which a layer has an L2 table; `limit` if there is none.
GuestOffset next_table(const qcow2::Mapping& mapping, GuestOffset from, GuestOffset limit) {
  const std::uint64_t coverage = mapping.geometry().l2_coverage();
  for (std::uint64_t i = mapping.geometry().l1_index(from); i < mapping.l1().size(); ++i) {
    if (i * coverage >= limit.value)
      break;
    if (qcow2::L1Entry(mapping.l1()[i].get()).has_l2_table())
      return std::max(from, GuestOffset{i * coverage});
  }
  return limit;
}

struct Window {
  GuestRange range;
  // No layer has anything to say. Such a window may be very large.
  bool is_empty = false;
  // This layer hides all below it, and none of its tables is there. It may be very large, too.
  std::optional<std::size_t> unread_layer{};
};

// Hands out windows, skipping over stretches where no layer has anything to say.
class Windows {
 public:
  // Where `has_holes` is set, tables may lie in holes, and it is worth to ask the file for them.
  Windows(const Chain& chain, GuestRange range, const std::atomic<bool>& has_holes)
      : chain_(&chain),
        range_(range),
        has_holes_(&has_holes),
        next_content_(chain.layers().size(), range.begin) {}

  std::optional<Window> next() {
    if (range_.empty())
      return std::nullopt;
    const std::uint64_t size = granule_size(*chain_, range_.begin) * clusters_per_window;
    GuestOffset end{std::min(range_.end.value, align_down(range_.begin.value, size) + size)};
    const GuestOffset content = next_content();
    if (content > end)
      end = {std::max(end.value, align_down(content.value, size))};
    if (content == range_.end)
      end = range_.end;
    for (const Layer& layer : chain_->layers()) {
      if (layer.guest_size > range_.begin.value)
        end = std::min(end, GuestOffset{layer.guest_size});
    }
    Window window{{range_.begin, end}, content >= end};
    if (const std::optional<Window> unread = next_unread(); unread && unread->range.end > end)
      window = *unread;
    range_.begin = window.range.end;
    return window;
  }

 private:
  GuestOffset next_content() {
    GuestOffset nearest = range_.end;
    for (std::size_t i = 0; i < next_content_.size(); ++i) {
      if (next_content_[i] <= range_.begin)
        next_content_[i] = next_content_of(chain_->layers()[i]);
      nearest = std::min(nearest, next_content_[i]);
    }
    return nearest;
  }

  // From the beginning of the range on, if the first layer that says anything there has no table.
  [[nodiscard]] std::optional<Window> next_unread() const {
    GuestOffset end = range_.end;
    for (std::size_t i = 0; i < next_content_.size(); ++i) {
      const Layer& layer = chain_->layers()[i];
      if (layer.guest_size <= range_.begin.value)
        break;
      end = std::min(end, GuestOffset{layer.guest_size});
      if (next_content_[i] > range_.begin) {
        end = std::min(end, next_content_[i]);
        continue;
      }
      if (layer.mapping)
        end = std::min(end, layer.mapping->end_without_tables(range_.begin));
      return layer.mapping && end > range_.begin
                 ? std::optional(Window{.range = {range_.begin, end}, .unread_layer = i})
                 : std::nullopt;
    }
    return std::nullopt;
  }

  GuestOffset next_content_of(const Layer& layer) const {
    if (layer.mapping && *has_holes_)
      return layer.mapping->next_described(range_.begin, range_.end);
    if (layer.mapping)
      return next_table(*layer.mapping, range_.begin, range_.end);
    const HostOffset origin = layer.raw().host_offset({0});
    const auto data = layer.raw().file().next_data(layer.raw().host_offset(range_.begin));
    if (!data)
      return range_.begin;  // the walk will meet the error and report it
    const GuestOffset guest{*data - origin};
    // Behind the last data there is one hole up to the end, which needs no windows.
    return guest.value >= layer.raw().exact_size() ? range_.end : std::min(guest, range_.end);
  }

  const Chain* chain_;
  GuestRange range_;
  const std::atomic<bool>* has_holes_;
  std::vector<GuestOffset> next_content_;  // per layer, at or after the position when it was asked
};

// Works on one window at a time; buffers are kept between windows. One per worker.
class Walker {
 public:
  // Sets `has_holes` where a table has nothing to say.
  Walker(const std::vector<Mapper::Source>& sources, std::atomic<bool>& has_holes)
      : sources_(&sources), has_holes_(&has_holes), runs_(sources.size()) {}

  Result<std::vector<Extent>> walk(const Window& window) {
    window_ = window.range;
    extents_.clear();
    reached_ = 0;
    while (reached_ < sources_->size() && layer(reached_).guest_size > window_.begin.value)
      ++reached_;
    if (window.unread_layer) {
      runs_[*window.unread_layer].clear();
      TRY(load(*window.unread_layer));
      add_only_layer(*window.unread_layer);
      return std::exchange(extents_, {});
    }
    speaking_.clear();
    granule_ = std::numeric_limits<std::uint64_t>::max();
    for (std::size_t i = 0; i < reached_; ++i) {
      runs_[i].clear();
      if (window.is_empty || !has_table(i))
        continue;
      speaking_.push_back(i);
      granule_ = std::min(granule_, layer(i).mapping->geometry().subcluster_size());
    }
    if (speaking_.size() > 1)
      TRY(take_by_layers());
    else if (!speaking_.empty())
      TRY(load(speaking_.front()));
    TRY(load_rest());
    if (speaking_.size() > 1)
      add_taken_and_rest();
    else if (!speaking_.empty())
      add_only_layer(speaking_.front());
    else
      add_rest(window_);
    return std::exchange(extents_, {});
  }

 private:
  static constexpr std::uint32_t nobody = ~0U;
  struct Owner {
    std::uint32_t layer = nobody;
    std::uint32_t run = 0;
  };

  [[nodiscard]] const Layer& layer(std::size_t i) const { return *(*sources_)[i].layer; }
  [[nodiscard]] bool has_table(std::size_t i) const {
    return layer(i).mapping &&
           next_table(*layer(i).mapping, window_.begin, window_.end) < window_.end;
  }
  [[nodiscard]] std::uint64_t granule_of(GuestOffset offset) const {
    return offset.value / granule_ - window_.begin.value / granule_;
  }
  // Where a granule begins, within the window.
  [[nodiscard]] GuestOffset begin_of(std::uint64_t granule) const {
    return std::max(window_.begin,
                    GuestOffset{(window_.begin.value / granule_ + granule) * granule_});
  }

  // Afterwards owners_ says of each granule which run has it.
  Result<void> take_by_layers() {
    owners_.assign(granule_of({window_.end.value - 1}) + 1, Owner{});
    open_ = owners_.size();
    for (const std::size_t i : speaking_) {
      if (open_ == 0)
        break;  // nobody can see what is below
      TRY(load(i));
      for (std::uint32_t run = 0; run < runs_[i].size(); ++run) {
        if (qcow2::is_allocated(runs_[i][run].kind))
          take(runs_[i][run].guest, {static_cast<std::uint32_t>(i), run});
      }
    }
    return {};
  }

  void take(GuestRange guest, Owner owner) {
    const std::uint64_t last = granule_of({guest.end.value - 1});
    for (std::uint64_t granule = granule_of(guest.begin); granule <= last; ++granule) {
      if (owners_[granule].layer != nobody)
        continue;
      owners_[granule] = owner;
      --open_;
    }
  }

  Result<void> load(std::size_t i) {
    if (layer(i).mapping)
      layer(i).mapping->runs(window_, cursor_, runs_[i]);
    else if (const Result<void> done = load_raw(layer(i), runs_[i]); !done)
      return fail(with_context(done.error(), to_terminal(layer(i).node->filename)));
    if (runs_[i].size() == 1 && runs_[i].front().kind == RunKind::unallocated)
      *has_holes_ = true;
    return {};
  }

  // All of a raw image is its own: its data, and its holes as zeros with a place.
  Result<void> load_raw(const Layer& raw, std::vector<Run>& runs) const {
    const HostOffset origin = raw.raw().host_offset({0});
    const GuestOffset data_end{std::min(window_.end.value, raw.raw().exact_size())};
    GuestOffset position = window_.begin;
    const auto add = [&](GuestOffset until, RunKind kind) {
      if (position < until)
        runs.push_back({{position, until}, raw.raw().host_offset(position), kind});
      position = std::max(position, until);
    };
    const std::vector<HostRange> ranges = TRY(io::data_ranges(
        raw.raw().file(), {raw.raw().host_offset(position), raw.raw().host_offset(data_end)}));
    for (const HostRange& data : ranges) {
      add({data.begin - origin}, RunKind::zero_reserved);
      add({data.end - origin}, RunKind::data);
    }
    add(window_.end, RunKind::zero_reserved);
    return {};
  }

  // What no table takes is answered by the deepest layer reached: a raw image has all of it; of a
  // qcow2 image the runs tell where a host cluster is reserved, which QEMU shows.
  Result<void> load_rest() {
    rest_position_ = 0;
    if (speaking_.size() > 1 && open_ == 0)
      return {};  // nobody can see it
    const std::size_t deepest = reached_ - 1;
    return layer(deepest).mapping ? Result<void>{} : load(deepest);
  }

  // Where one layer alone has a table, there is nothing to settle.
  void add_only_layer(std::size_t i) {
    for (const Run& run : runs_[i]) {
      if (qcow2::is_allocated(run.kind))
        add_run(i, run, run.guest);
      else
        add_rest(run.guest);
    }
  }

  void add_taken_and_rest() {
    for (std::uint64_t granule = 0; granule < owners_.size();) {
      const Owner owner = owners_[granule];
      std::uint64_t next = granule + 1;
      while (next < owners_.size() && owners_[next].layer == owner.layer &&
             owners_[next].run == owner.run)
        ++next;
      const GuestRange guest{begin_of(granule), std::min(begin_of(next), window_.end)};
      if (owner.layer == nobody)
        add_rest(guest);
      else
        add_run(owner.layer, runs_[owner.layer][owner.run], guest);
      granule = next;
    }
  }

  // `guest` was left open by every table; called from left to right.
  void add_rest(GuestRange guest) {
    const std::size_t deepest = reached_ - 1;
    const std::vector<Run>& runs = runs_[deepest];
    while (!guest.empty()) {
      while (rest_position_ < runs.size() && runs[rest_position_].guest.end <= guest.begin)
        ++rest_position_;
      GuestRange part = guest;
      if (rest_position_ == runs.size()) {
        add_absent(deepest, part, RunKind::unallocated, {});
      } else {
        const Run& run = runs[rest_position_];
        part.end = std::min(part.end, run.guest.end);
        if (!layer(deepest).mapping)
          add_run(deepest, run, part);
        else
          add_absent(deepest, part, run.kind, run.host + (part.begin - run.guest.begin));
      }
      guest.begin = part.end;
    }
  }

  void add_absent(std::size_t i, GuestRange guest, RunKind kind, HostOffset host) {
    add({.guest = guest,
         .host = host,
         .layer = static_cast<std::uint32_t>(i),
         .zero = true,
         .has_host = kind == RunKind::reserved && (*sources_)[i].shows_host,
         .past_end = reached_ < sources_->size()});
  }

  void add_run(std::size_t i, const Run& run, GuestRange guest) {
    Extent extent{.guest = guest,
                  .host = run.host + (guest.begin - run.guest.begin),
                  .layer = static_cast<std::uint32_t>(i),
                  .present = true,
                  .zero = run.kind == RunKind::zero || run.kind == RunKind::zero_reserved,
                  .data = run.kind == RunKind::data || run.kind == RunKind::compressed ||
                          run.kind == RunKind::unknown,
                  .has_host = has_host(run.kind) && (*sources_)[i].shows_host,
                  .compressed = run.kind == RunKind::compressed,
                  .unreadable = run.unreadable};
    extent.zero = extent.zero || (extent.is_lost() && (*sources_)[i].unreadable_are_zeros);
    if (run.kind == RunKind::data && layer(i).mapping)
      add_data(extent, layer(i).mapping->data_end());
    else
      add(extent);
  }

  // The file may end inside the extent.
  void add_data(Extent extent, std::uint64_t data_end) {
    const std::uint64_t readable = data_end - std::min(data_end, extent.host.value);
    if (readable < extent.guest.size()) {
      Extent lost = extent;
      extent.guest.end = lost.guest.begin = extent.guest.begin + readable;
      lost.host = lost.host + readable;
      lost.unreadable = qcow2::Unreadable::past_end;
      lost.zero = (*sources_)[extent.layer].unreadable_are_zeros;
      lost.hole_of_qemu = (*sources_)[extent.layer].looks_for_holes;
      if (!extent.guest.empty())
        add(extent);
      extent = lost;
    }
    add(extent);
  }

  void add(const Extent& extent) {
    if (!extents_.empty() && continues(extents_.back(), extent))
      extents_.back().guest.end = extent.guest.end;
    else
      extents_.push_back(extent);
  }

  const std::vector<Mapper::Source>* sources_;
  std::atomic<bool>* has_holes_;
  std::vector<std::vector<Run>> runs_;  // per layer, of this window
  std::uint64_t granule_ = 0;           // no run of a speaking layer begins or ends inside one
  qcow2::Mapping::Cursor cursor_;
  GuestRange window_;
  std::size_t reached_ = 0;  // layers that reach into the window; what is below them is not seen
  std::vector<std::size_t> speaking_;  // those of them that have a table there, top down
  std::vector<Owner> owners_;          // per granule of the window
  std::uint64_t open_ = 0;             // granules that nobody has taken
  std::size_t rest_position_ = 0;      // first run of the deepest layer that may still be needed
  std::vector<Extent> extents_;
};

// Cuts extents at holes, decides which of the streams that the end of the file cuts can be read,
// and merges across windows: the last extent waits until something follows that does not continue
// it. A cluster with many holes may be named many times over, so the parts are handed on some at a
// time.
class Joiner {
 public:
  Joiner(const std::vector<Mapper::Source>& sources, const ExtentConsumer& consumer)
      : sources_(&sources), consumer_(&consumer) {}

  Result<void> take(std::vector<Extent> extents) {
    const bool is_split = std::any_of(extents.begin(), extents.end(), [&](const Extent& extent) {
      return may_have_holes(extent) || extent.unreadable == qcow2::Unreadable::undecided;
    });
    if (!is_split)
      return join(extents);
    for (const Extent& extent : extents) {
      if (may_have_holes(extent))
        TRY(split_at_holes((*sources_)[extent.layer].data_ranges, extent));
      else if (extent.unreadable == qcow2::Unreadable::undecided)
        TRY(decide(extent));
      else
        TRY(add(extent));
    }
    return join_parts();
  }

  Result<void> finish() {
    return pending_ ? (*consumer_)(std::span(&*pending_, 1)) : Result<void>{};
  }

 private:
  static constexpr std::size_t most_parts = 8192;

  [[nodiscard]] bool may_have_holes(const Extent& extent) const {
    return extent.data && !extent.compressed && !extent.is_lost() &&
           (*sources_)[extent.layer].looks_for_holes;
  }

  // QEMU block/io.c: a data extent whose host range is a hole reads as zeros, and is told so.
  Result<void> split_at_holes(const std::vector<HostRange>& data_ranges, Extent extent) {
    const HostOffset end = extent.host + extent.guest.size();
    auto range = std::partition_point(data_ranges.begin(), data_ranges.end(),
                                      [&](const HostRange& r) { return r.end <= extent.host; });
    while (extent.host < end) {
      const bool in_data = range != data_ranges.end() && range->contains(extent.host);
      HostOffset until = end;
      if (range != data_ranges.end())
        until = std::min(end, in_data ? range->end : range->begin);
      Extent part = extent;
      part.guest.end = part.guest.begin + (until - extent.host);
      part.zero = !in_data;
      TRY(add(part));
      extent.guest.begin = part.guest.end;
      extent.host = until;
      if (in_data)
        ++range;
    }
    return {};
  }

  Result<void> decide(Extent extent) {
    const Mapper::Source& source = (*sources_)[extent.layer];
    return cut_streams_.for_each_cluster(
        source.layer->qcow2(), *source.layer->mapping, extent.guest,
        [&](GuestRange guest, qcow2::Unreadable state) {
          extent.guest = guest;
          extent.unreadable = state;
          extent.zero = extent.is_lost() && source.unreadable_are_zeros;
          return add(extent);
        });
  }

  Result<void> add(const Extent& extent) {
    if (!parts_.empty() && continues(parts_.back(), extent)) {
      parts_.back().guest.end = extent.guest.end;
      return {};
    }
    parts_.push_back(extent);
    return parts_.size() < most_parts ? Result<void>{} : join_parts();
  }

  Result<void> join_parts() {
    Result<void> done = join(parts_);
    parts_.clear();
    return done;
  }

  Result<void> join(std::span<Extent> extents) {
    if (extents.empty())
      return {};
    if (pending_ && continues(*pending_, extents.front())) {
      extents.front().guest.begin = pending_->guest.begin;
      extents.front().host = pending_->host;
    } else if (pending_) {
      TRY((*consumer_)(std::span(&*pending_, 1)));
    }
    pending_ = extents.back();
    return (*consumer_)(extents.first(extents.size() - 1));
  }

  const std::vector<Mapper::Source>* sources_;
  const ExtentConsumer* consumer_;
  std::optional<Extent> pending_;
  std::vector<Extent> parts_;
  CutStreams cut_streams_;
};

}  // namespace

bool continues(const Extent& extent, const Extent& next) {
  return extent.unreadable == next.unreadable && continues_in_qemu(extent, next);
}

bool continues_in_qemu(const Extent& extent, const Extent& next) {
  return extent.layer == next.layer && extent.present == next.present && extent.zero == next.zero &&
         extent.data == next.data && extent.has_host == next.has_host &&
         extent.compressed == next.compressed && extent.past_end == next.past_end &&
         (!extent.has_host || extent.host.value + extent.guest.size() == next.host.value);
}

Result<void> map(const Chain& chain, GuestRange range, unsigned workers,
                 const ExtentConsumer& consumer) {
  return TRY(Mapper::make(chain)).map(range, workers, consumer);
}

Mapper::Mapper(const Chain& chain, std::vector<Source> sources)
    : chain_(&chain), sources_(std::make_shared<const std::vector<Source>>(std::move(sources))) {}

Result<Mapper> Mapper::make(const Chain& chain, Holes holes) {
  std::vector<Source> sources;
  for (const Layer& layer : chain.layers())
    sources.push_back(TRY(prepare(layer, holes)));
  for (Source& source : sources)
    source.unreadable_are_zeros = chain.unreadable_are_zeros();
  return Mapper(chain, std::move(sources));
}

Result<void> Mapper::map(GuestRange range, unsigned workers, const ExtentConsumer& consumer) const {
  std::atomic<bool> has_holes = false;
  Windows windows(*chain_, range, has_holes);
  std::vector<std::unique_ptr<Walker>> walkers;
  for (unsigned i = 0; i < std::max(workers, 1U); ++i)
    walkers.push_back(std::make_unique<Walker>(*sources_, has_holes));
  OrderedPipeline<Window, std::vector<Extent>> pipeline(
      [&] { return windows.next(); },
      [&](const Window& window, unsigned worker) { return walkers[worker]->walk(window); },
      workers);
  Joiner joiner(*sources_, consumer);
  TRY(pipeline.run([&](std::vector<Extent> extents) { return joiner.take(std::move(extents)); }));
  return joiner.finish();
}

}  // namespace coldchain::analysis
