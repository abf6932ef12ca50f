// SPDX-License-Identifier: MIT
// How it works. The range is cut into windows. In a window, each layer that has anything to say
// there is read once, as runs; then one walk goes through the window from left to right, descending
// from a layer only into what that layer leaves open. Since the walk never goes back, a position
// per layer replaces all searching. Layers without a table in the window are skipped altogether.
#include <algorithm>
#include <memory>
#include <mutex>

#include <coldchain/analysis/map.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::analysis {

namespace {

using graph::Chain;
using graph::Layer;
using qcow2::Run;
using qcow2::RunKind;

// Clusters of the finest layer in a window: small enough to stay in the cache, large enough that
// one read of an L2 table serves it.
constexpr std::uint64_t clusters_per_window = 8192;

struct SourceLayer {
  const Layer* layer = nullptr;
  // For images with preallocated metadata: what of the file that holds the data is not a hole.
  bool looks_for_holes = false;
  std::vector<HostRange> data_ranges;
};

std::uint64_t window_size(const Chain& chain) {
  std::uint64_t finest = 1ULL << 17;  // raw layers alone: windows of 1 GiB
  for (const Layer& layer : chain.layers()) {
    if (layer.mapping)
      finest = std::min(finest, layer.mapping->geometry().subcluster_size());
  }
  return finest * clusters_per_window;
}

Result<SourceLayer> prepare(const Layer& layer) {
  SourceLayer source;
  source.layer = &layer;
  if (!layer.mapping)
    return source;
  const qcow2::Image& image = layer.qcow2();
  const bool has_host_offsets = image.header().crypt_method == 0 && image.data_file() != nullptr;
  source.looks_for_holes = has_host_offsets && image.has_preallocated_metadata();
  if (source.looks_for_holes)
    source.data_ranges =
        TRY(io::data_ranges(*image.data_file(), {{0}, {image.data_file()->size()}}));
  return source;
}

// Hands out windows, skipping over stretches where no layer has anything to say.
class Windows {
 public:
  Windows(const Chain& chain, GuestRange range)
      : chain_(&chain),
        range_(range),
        size_(window_size(chain)),
        next_content_(chain.layers().size(), range.begin) {}

  std::optional<GuestRange> next() {
    if (range_.empty())
      return std::nullopt;
    GuestOffset end{std::min(range_.end.value, align_down(range_.begin.value, size_) + size_)};
    const GuestOffset content = next_content();
    if (content > end)
      end = {std::max(end.value, align_down(content.value, size_))};
    if (content == range_.end)
      end = range_.end;
    const GuestRange window{range_.begin, end};
    range_.begin = end;
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

  GuestOffset next_content_of(const Layer& layer) const {
    if (layer.mapping)
      return layer.mapping->next_described(range_.begin, range_.end);
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
  std::uint64_t size_;
  std::vector<GuestOffset> next_content_;  // per layer, at or after the position when it was asked
};

// Walks one window at a time; buffers are kept between windows. One per worker.
class Walker {
 public:
  explicit Walker(const std::vector<SourceLayer>& sources)
      : sources_(&sources), states_(sources.size()) {}

  Result<std::vector<Extent>> walk(GuestRange window) {
    window_ = window;
    extents_.clear();
    prepare_window();
    TRY(fill(0, window));
    return std::exchange(extents_, {});
  }

 private:
  struct State {
    bool loaded = false;
    std::size_t position = 0;    // first run that may still be needed
    std::size_t next_below = 0;  // the layer that answers for what this one leaves open
    std::vector<Run> runs;
    qcow2::Mapping::Cursor cursor;
  };

  [[nodiscard]] const Layer& layer(std::size_t i) const { return *(*sources_)[i].layer; }

  // A layer matters in this window if it has a table there, ends there, or is the last.
  void prepare_window() {
    std::size_t below = sources_->size();
    for (std::size_t i = sources_->size(); i-- > 0;) {
      State& state = states_[i];
      state.loaded = false;
      state.position = 0;
      state.next_below = below;
      const bool is_last = i + 1 == sources_->size();
      const bool ends_here = layer(i).guest_size < window_.end.value;
      const bool has_table = !layer(i).mapping || layer(i).mapping->next_described(
                                                      window_.begin, window_.end) < window_.end;
      if (is_last || ends_here || has_table)
        below = i;
    }
  }

  Result<void> load(std::size_t i) {
    State& state = states_[i];
    state.loaded = true;
    state.runs.clear();
    Result<void> done = layer(i).mapping ? layer(i).mapping->runs(window_, state.cursor, state.runs)
                                         : load_raw(layer(i), state.runs);
    if (!done)
      return fail(with_context(done.error(), to_terminal(layer(i).node->filename)));
    return {};
  }

  // All of a raw image is its own: its data, and its holes as zeros with a place.
  Result<void> load_raw(const Layer& layer, std::vector<Run>& runs) const {
    const HostOffset origin = layer.raw().host_offset({0});
    const GuestOffset end{std::min(window_.end.value, layer.guest_size)};
    const GuestOffset data_end{std::min(end.value, layer.raw().exact_size())};
    GuestOffset position = window_.begin;
    const auto add = [&](GuestOffset until, RunKind kind) {
      if (position < until)
        runs.push_back({{position, until}, layer.raw().host_offset(position), kind});
      position = std::max(position, until);
    };
    const std::vector<HostRange> ranges =
        TRY(io::data_ranges(layer.raw().file(), {layer.raw().host_offset(position),
                                                 layer.raw().host_offset(data_end)}));
    for (const HostRange& data : ranges) {
      add({data.begin - origin}, RunKind::zero_reserved);
      add({data.end - origin}, RunKind::data);
    }
    add(end, RunKind::zero_reserved);
    return {};
  }

  // `range` lies in the window and within layer i.
  Result<void> fill(std::size_t i, GuestRange range) {
    State& state = states_[i];
    if (!state.loaded)
      TRY(load(i));
    while (state.position < state.runs.size() &&
           state.runs[state.position].guest.end <= range.begin)
      ++state.position;
    for (std::size_t at = state.position; at < state.runs.size(); ++at) {
      const Run& run = state.runs[at];
      const GuestRange part{std::max(run.guest.begin, range.begin),
                            std::min(run.guest.end, range.end)};
      if (part.empty())
        break;
      const HostOffset host = run.host + (part.begin - run.guest.begin);
      if (qcow2::is_allocated(run.kind))
        add_allocated(i, part, run.kind, host);
      else
        TRY(fill_below(i, part, run.kind, host));
    }
    return {};
  }

  // What layer i leaves open. A reserved cluster has a place in the file though nobody reads it
  // there; QEMU shows that place where no layer below answers.
  Result<void> fill_below(std::size_t i, GuestRange part, RunKind kind, HostOffset host) {
    const std::size_t below = states_[i].next_below;
    if (below == sources_->size()) {
      add_absent(i, part, kind, host, false);
      return {};
    }
    const GuestOffset end{
        std::max(part.begin.value, std::min(part.end.value, layer(below).guest_size))};
    if (part.begin < end)
      TRY(fill(below, {part.begin, end}));
    if (end < part.end) {
      const bool direct = below == i + 1;
      add_absent(below - 1, {end, part.end}, direct ? kind : RunKind::unallocated,
                 host + (end - part.begin), true);
    }
    return {};
  }

  void add_absent(std::size_t i, GuestRange guest, RunKind kind, HostOffset host, bool past_end) {
    add({.guest = guest,
         .host = host,
         .layer = static_cast<std::uint32_t>(i),
         .zero = true,
         .has_host = kind == RunKind::reserved && shows_host(i),
         .past_end = past_end});
  }

  void add_allocated(std::size_t i, GuestRange guest, RunKind kind, HostOffset host) {
    Extent extent{.guest = guest,
                  .host = host,
                  .layer = static_cast<std::uint32_t>(i),
                  .present = true,
                  .zero = kind == RunKind::zero || kind == RunKind::zero_reserved,
                  .data = kind == RunKind::data || kind == RunKind::compressed,
                  .has_host = has_host(kind) && shows_host(i),
                  .compressed = kind == RunKind::compressed};
    if (kind == RunKind::data && (*sources_)[i].looks_for_holes)
      add_split_at_holes((*sources_)[i].data_ranges, extent);
    else
      add(extent);
  }

  // QEMU block/io.c: a data extent whose host range is a hole reads as zeros, and is told so.
  void add_split_at_holes(const std::vector<HostRange>& data_ranges, Extent extent) {
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
      add(part);
      extent.guest.begin = part.guest.end;
      extent.host = until;
      if (in_data)
        ++range;
    }
  }

  // The place of an encrypted cluster is of no use to a reader, so QEMU does not show it.
  [[nodiscard]] bool shows_host(std::size_t i) const {
    const qcow2::Image* image = layer(i).node->qcow2_image();
    return image == nullptr || image->header().crypt_method == 0;
  }

  void add(const Extent& extent) {
    if (!extents_.empty() && continues(extents_.back(), extent))
      extents_.back().guest.end = extent.guest.end;
    else
      extents_.push_back(extent);
  }

  const std::vector<SourceLayer>* sources_;
  std::vector<State> states_;
  GuestRange window_;
  std::vector<Extent> extents_;
};

// Merges across windows: the last extent waits until something follows that does not continue it.
class Joiner {
 public:
  explicit Joiner(const ExtentConsumer& consumer) : consumer_(&consumer) {}

  Result<void> take(std::vector<Extent> extents) {
    if (extents.empty())
      return {};
    if (pending_ && continues(*pending_, extents.front())) {
      extents.front().guest.begin = pending_->guest.begin;
      extents.front().host = pending_->host;
    } else if (pending_) {
      TRY((*consumer_)(std::span(&*pending_, 1)));
    }
    pending_ = extents.back();
    return (*consumer_)(std::span(extents).first(extents.size() - 1));
  }

  Result<void> finish() {
    return pending_ ? (*consumer_)(std::span(&*pending_, 1)) : Result<void>{};
  }

 private:
  const ExtentConsumer* consumer_;
  std::optional<Extent> pending_;
};

}  // namespace

bool continues(const Extent& extent, const Extent& next) {
  return extent.layer == next.layer && extent.present == next.present && extent.zero == next.zero &&
         extent.data == next.data && extent.has_host == next.has_host &&
         extent.compressed == next.compressed && extent.past_end == next.past_end &&
         (!extent.has_host || extent.host.value + extent.guest.size() == next.host.value);
}

Result<void> map(const Chain& chain, GuestRange range, unsigned workers,
                 const ExtentConsumer& consumer) {
  std::vector<SourceLayer> sources;
  for (const Layer& layer : chain.layers())
    sources.push_back(TRY(prepare(layer)));
  Windows windows(chain, range);
  std::vector<std::unique_ptr<Walker>> walkers;
  for (unsigned i = 0; i < std::max(workers, 1U); ++i)
    walkers.push_back(std::make_unique<Walker>(sources));
  OrderedPipeline<GuestRange, std::vector<Extent>> pipeline(
      [&] { return windows.next(); },
      [&](const GuestRange& window, unsigned worker) { return walkers[worker]->walk(window); },
      workers);
  Joiner joiner(consumer);
  TRY(pipeline.run([&](std::vector<Extent> extents) { return joiner.take(std::move(extents)); }));
  return joiner.finish();
}

}  // namespace coldchain::analysis
