// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cassert>
#include <set>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/endian.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/transaction.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {}  // namespace

std::uint64_t storage_to_expect(const io::File& file) {
  const io::FileStatus& status = file.status();
  return status.kind == io::FileKind::regular ? status.allocated : status.size;
}

Transaction::Transaction(const io::File& image, Fresh fresh)
    : image_(&image), view_(image), fresh_(fresh) {
  raise_limit(image);
}

void Transaction::raise_limit(const io::File& file) {
  limit_ = checked_add(limit_, storage_to_expect(file)).value_or(limit_);
}

bool Transaction::is_empty() const {
  return counted_.empty() && std::all_of(phases_.begin(), phases_.end(),
                                         [](const Patches& patches) { return patches.empty(); });
}

std::uint64_t Transaction::changed_bytes() const {
  std::set<std::uint64_t> sectors;
  for (const Patches& patches : phases_) {
    for (const auto& [sector, patch] : patches) {
      if (!is_counted(sector))
        sectors.insert(sector);
    }
  }
  return sectors.size() * sector_size + counted_bytes_;
}

bool Transaction::is_counted(std::uint64_t sector) const {
  const auto after = counted_.upper_bound(sector);
  return after != counted_.begin() && sector < std::prev(after)->second;
}

Result<Transaction::Patch*> Transaction::patch_at(Phase phase, std::uint64_t index) {
  const auto [at, is_new] = phases_[static_cast<std::size_t>(phase)].try_emplace(index);
  if (is_new)
    staged_ += sector_size;
  if (staged_ > limit_)
    return fail(ErrorCode::too_large,
                fmt::format("the change needs more than {} bytes of tables at once, which is too "
                            "much for files of this size",
                            limit_));
  return &at->second;
}

void Transaction::Patch::apply_to(Sector& sector) const {
  for (std::size_t i = 0; i < sector_size; ++i) {
    if (is_set[i])
      sector[i] = bytes[i];
  }
}

Result<Transaction::Sector> Transaction::sector_at(std::uint64_t index, std::size_t end) const {
  Sector sector;
  TRY(io::read_zero_extended(*image_, {index * sector_size}, sector));
  for (std::size_t phase = 0; phase < end; ++phase) {
    const auto found = phases_[phase].find(index);
    if (found != phases_[phase].end())
      found->second.apply_to(sector);
  }
  return sector;
}

Transaction::Places Transaction::set_after(std::size_t phase, std::uint64_t index) const {
  Places places;
  for (std::size_t later = phase + 1; later < phase_count; ++later) {
    const auto found = phases_[later].find(index);
    if (found != phases_[later].end())
      places |= found->second.is_set;
  }
  return places;
}

Result<void> Transaction::check_bounds(HostOffset offset, std::uint64_t size) const {
  if (offset.value > size_after() || size > size_after() - offset.value)
    return fail(ErrorCode::corrupt,
                fmt::format("a change at {:#x} lies past the end of the file", offset.value));
  return {};
}

Result<void> Transaction::stage(Phase phase, HostOffset offset, ByteView bytes) {
  TRY(check_bounds(offset, bytes.size()));
  for (std::size_t done = 0; done < bytes.size();) {
    const std::uint64_t at = offset.value + done;
    const std::uint64_t index = at / sector_size;
    const std::uint64_t in_sector = at % sector_size;
    const std::size_t count = std::min<std::size_t>(bytes.size() - done, sector_size - in_sector);
    const Places set_later = set_after(static_cast<std::size_t>(phase), index);
    const Sector* former = view_.find(index);
    Sector result = former != nullptr ? *former : TRY(sector_at(index, 0));
    // What nobody has changed and does not change needs no memory.
    if (former == nullptr && std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(done),
                                        bytes.begin() + static_cast<std::ptrdiff_t>(done + count),
                                        result.begin() + static_cast<std::ptrdiff_t>(in_sector))) {
      done += count;
      continue;
    }
    Patch& patch = *TRY(patch_at(phase, index));
    for (std::size_t i = in_sector; i < in_sector + count; ++i) {
      patch.bytes[i] = bytes[done + i - in_sector];
      patch.is_set.set(i);
      if (!set_later[i])
        result[i] = patch.bytes[i];
    }
    view_.put(index, result);
    done += count;
  }
  return {};
}

Result<void> Transaction::stage_entry(Phase phase, HostOffset offset, std::uint64_t entry) {
  return stage(phase, offset, bytes_of(be64(entry)));
}

Result<void> Transaction::stage_fresh(HostOffset offset, ByteView bytes) {
  TRY(check_bounds(offset, bytes.size()));
  if (counts_fresh()) {
    count_fresh(offset.value / sector_size, bytes.size() / sector_size);
    return {};
  }
  for (std::size_t done = 0; done < bytes.size(); done += sector_size) {
    const std::uint64_t index = offset.value / sector_size + done / sector_size;
    Patch& patch = *TRY(patch_at(Phase::fresh, index));
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(done), sector_size,
                patch.bytes.begin());
    patch.is_set.set();
    view_.put(index, patch.bytes);
  }
  return {};
}

// Clusters are staged once: runs that touch become one, and none overlap.
void Transaction::count_fresh(std::uint64_t first, std::uint64_t count) {
  counted_bytes_ += count * sector_size;
  std::uint64_t end = first + count;
  if (const auto next = counted_.find(end); next != counted_.end()) {
    end = next->second;
    counted_.erase(next);
  }
  const auto after = counted_.upper_bound(first);
  if (after != counted_.begin() && std::prev(after)->second == first)
    std::prev(after)->second = end;
  else
    counted_.emplace_hint(after, first, end);
}

Result<ChangeCount> Transaction::count_changes() const {
  ChangeCount count;
  TRY(for_each_patch([&](const Change& change) -> Result<void> {
    ++count.changes;
    count.bytes += change.after.size();
    return {};
  }));
  for (const auto& [first, end] : counted_)
    count.changes += divide_up((end - first) * sector_size, most_change_bytes);
  count.bytes += counted_bytes_;
  return count;
}

Result<void> Transaction::for_each_change(
    const std::function<Result<void>(const Change&)>& visit) const {
  assert(!counts_fresh());
  return for_each_patch(visit);
}

Result<void> Transaction::for_each_patch(
    const std::function<Result<void>(const Change&)>& visit) const {
  for (std::size_t phase = 0; phase < phase_count; ++phase) {
    Change change;
    const auto hand_out = [&]() -> Result<void> {
      return change.after.empty() ? Result<void>{} : visit(change);
    };
    for (const auto& [index, patch] : phases_[phase]) {
      const Sector before = TRY(sector_at(index, phase));
      Sector after = before;
      patch.apply_to(after);
      const bool is_whole = static_cast<Phase>(phase) == Phase::fresh && patch.is_set.all();
      if (before == after && !is_whole)
        continue;
      const HostOffset offset{index * sector_size};
      if (change.after.empty() || change.offset + change.after.size() != offset ||
          change.after.size() == most_change_bytes) {
        TRY(hand_out());
        change = {static_cast<Phase>(phase), offset, {}, {}};
      }
      change.before.insert(change.before.end(), before.begin(), before.end());
      change.after.insert(change.after.end(), after.begin(), after.end());
    }
    TRY(hand_out());
  }
  return {};
}

}  // namespace coldchain::edit
