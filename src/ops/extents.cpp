// SPDX-License-Identifier: MIT
#include "extents.hpp"

#include <algorithm>
#include <limits>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/transaction.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

using analysis::Extent;

Extent clip(const Extent& extent, GuestRange range) {
  Extent part = extent;
  part.guest = {std::max(extent.guest.begin, range.begin), std::min(extent.guest.end, range.end)};
  part.host = extent.host + (part.guest.begin - extent.guest.begin);
  return part;
}

// Deflate makes at most 1,032 times as much of a stream, of zeros alone, which are not stored.
constexpr std::uint64_t most_expansion = 512;
constexpr std::uint64_t least_data_bytes = 512ULL << 20;

ExtentBudget::ExtentBudget(const graph::Chain& chain) {
  std::uint64_t storage = 0;
  for (const graph::Layer& layer : chain.layers()) {
    for (const io::File* file : {layer.node->file.get(), layer.node->data_file.get()}) {
      if (file != nullptr)
        storage = checked_add(storage, edit::storage_to_expect(*file)).value_or(storage);
    }
  }
  most_extents_ = (1ULL << 18) + storage / sizeof(be64);
  most_pieces_ = (1ULL << 22) + (storage >> 20);
  most_data_ = std::max(least_data_bytes, checked_mul(storage, most_expansion).value_or(~0ULL));
}

Result<void> ExtentBudget::spend_data(std::uint64_t bytes) {
  spent_data_ = checked_add(spent_data_, bytes).value_or(~0ULL);
  if (spent_data_ <= most_data_)
    return {};
  return fail(ErrorCode::too_large,
              fmt::format("the plan would read more than {} bytes of data, {} times what the files "
                          "of the chain have storage for: plan it without --detect-zeroes and "
                          "--recompress",
                          most_data_, most_expansion));
}

Result<void> ExtentBudget::spend(std::uint64_t extents) {
  spent_ += extents;
  if (spent_ <= most_extents_)
    return {};
  return fail(ErrorCode::too_large,
              fmt::format("the chain describes more than {} extents, more than its files have "
                          "storage for: run 'coldchain check' on its layers",
                          most_extents_));
}

Result<void> map_within(ExtentBudget& budget, const graph::Chain& chain, GuestRange range,
                        unsigned workers, const analysis::ExtentConsumer& consumer) {
  return analysis::map(chain, range, workers, [&](std::span<const Extent> extents) -> Result<void> {
    TRY(budget.spend(extents.size()));
    return consumer(extents);
  });
}

Result<void> map_layers_within(ExtentBudget& budget, const graph::Chain& chain, unsigned workers,
                               const analysis::ExtentConsumer& consumer) {
  const auto mapper = TRY(analysis::Mapper::make(chain, analysis::Mapper::Holes::are_data));
  return mapper.map({{0}, {chain.guest_size()}}, workers,
                    [&](std::span<const Extent> extents) -> Result<void> {
                      TRY(budget.spend(extents.size()));
                      return consumer(extents);
                    });
}

Result<Extent> MapCursor::at(GuestOffset at) {
  constexpr std::size_t few_extents = 1 << 15;
  const GuestOffset end{chain_.guest_size()};
  if (at >= end) {
    Extent behind;
    behind.guest = {at, {std::numeric_limits<std::uint64_t>::max()}};
    return behind;
  }
  while (next_ < window_.size() && window_[next_].guest.end <= at)
    ++next_;
  if (next_ == window_.size()) {
    if (window_.size() < few_extents)
      window_bytes_ *= 2;
    window_.clear();
    next_ = 0;
    if (!mapper_)
      mapper_ = TRY(analysis::Mapper::make(chain_));
    const auto take = [&](std::span<const Extent> some) -> Result<void> {
      window_.insert(window_.end(), some.begin(), some.end());
      return budget_.spend(some.size());
    };
    TRY(mapper_->map({at, std::min(end, at + window_bytes_)}, workers_, take));
  }
  return window_[next_];
}

Result<bool> ExtentCounter::is_of_another(const Extent& part) {
  const bool is_same = last_ && TRY(goes_on_to(part));
  last_ = part;
  return !is_same;
}

// Between two parts of one extent, some of it may not be copied: then the map is asked.
Result<bool> ExtentCounter::goes_on_to(const Extent& part) {
  Extent last = *last_;
  while (last.guest.end < part.guest.begin) {
    Extent between = TRY(cursor_.at(last.guest.end));
    between = clip(between, {last.guest.end, std::min(between.guest.end, part.guest.begin)});
    if (!analysis::continues(last, between))
      return false;
    last = between;
  }
  return analysis::continues(last, part);
}

Place EntryCursor::Entry::place_of(unsigned subcluster) const {
  const Place data = cluster.is_copied() ? Place::own : Place::not_to_use;
  if (cluster.is_compressed())
    return Place::not_to_use;
  if (is_extended) {
    if ((subclusters.zero() >> subcluster & 1) != 0)
      return Place::zero;
    return (subclusters.allocated() >> subcluster & 1) != 0 ? data : Place::none;
  }
  if (cluster.reads_as_zero())
    return Place::zero;
  return cluster.host_offset().value != 0 ? data : Place::none;
}

GuestOffset EntryCursor::end_without_table(GuestRange range) const {
  const qcow2::Geometry& geometry = layer_.mapping->geometry();
  const auto& l1 = layer_.mapping->l1();
  while (range.begin < range.end) {
    const std::uint64_t index = geometry.l1_index(range.begin);
    if (index >= l1.size())
      return range.end;
    if (qcow2::L1Entry(l1[index].get()).has_l2_table())
      return range.begin;
    range.begin = {(index + 1) * geometry.l2_coverage()};
  }
  return range.end;
}

Result<EntryCursor::Entry> EntryCursor::at(GuestOffset at) {
  const qcow2::Geometry& geometry = layer_.mapping->geometry();
  const std::uint64_t l1_index = geometry.l1_index(at);
  const auto& l1 = layer_.mapping->l1();
  if (l1_index >= l1.size() || !qcow2::L1Entry(l1[l1_index].get()).has_l2_table())
    return Entry{};
  const HostOffset wanted = qcow2::L1Entry(l1[l1_index].get()).l2_table();
  if (table_at_ != wanted) {
    table_.resize(geometry.cluster_size());
    // The file may end in the part that lies behind the end of the disk.
    TRY(io::read_table(layer_.qcow2().file(), wanted, table_));
    table_at_ = wanted;
  }
  const std::uint64_t begin = geometry.l2_index(at) * geometry.l2_entry_bytes();
  Entry entry;
  entry.cluster = qcow2::L2Entry(load<be64>(table_, begin)->get());
  entry.is_extended = geometry.subclusters_per_cluster() > 1;
  if (entry.is_extended)
    entry.subclusters = qcow2::SubclusterBitmap(load<be64>(table_, begin + sizeof(be64))->get());
  return entry;
}

}  // namespace coldchain::ops
