// SPDX-License-Identifier: MIT
#include <algorithm>
#include <set>

#include <coldchain/base/endian.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/transaction.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::uint64_t sector_size = io::OverlayFile::sector_size;

}  // namespace

bool Transaction::is_empty() const {
  return std::all_of(phases_.begin(), phases_.end(),
                     [](const Patches& patches) { return patches.empty(); });
}

std::uint64_t Transaction::changed_bytes() const {
  std::set<std::uint64_t> sectors;
  for (const Patches& patches : phases_) {
    for (const auto& [sector, patch] : patches)
      sectors.insert(sector);
  }
  return sectors.size() * sector_size;
}

Result<Transaction::Sector> Transaction::sector_at(std::uint64_t index, std::size_t end) const {
  Sector sector;
  TRY(io::read_zero_extended(*image_, {index * sector_size}, sector));
  for (std::size_t phase = 0; phase < end; ++phase) {
    const auto found = phases_[phase].find(index);
    if (found == phases_[phase].end())
      continue;
    for (std::size_t i = 0; i < sector_size; ++i) {
      if (found->second.is_set[i])
        sector[i] = found->second.bytes[i];
    }
  }
  return sector;
}

Result<void> Transaction::stage(Phase phase, HostOffset offset, ByteView bytes) {
  if (offset.value > size_after() || bytes.size() > size_after() - offset.value)
    return fail(ErrorCode::corrupt,
                fmt::format("a change at {:#x} lies past the end of the file", offset.value));
  Patches& patches = phases_[static_cast<std::size_t>(phase)];
  for (std::size_t done = 0; done < bytes.size();) {
    const std::uint64_t at = offset.value + done;
    const std::uint64_t index = at / sector_size;
    const std::uint64_t in_sector = at % sector_size;
    const std::size_t count = std::min<std::size_t>(bytes.size() - done, sector_size - in_sector);
    Patch& patch = patches[index];
    for (std::size_t i = 0; i < count; ++i) {
      patch.bytes[in_sector + i] = bytes[done + i];
      patch.is_set.set(in_sector + i);
    }
    view_.put(index, TRY(sector_at(index, phase_count)));
    done += count;
  }
  return {};
}

Result<void> Transaction::stage_entry(Phase phase, HostOffset offset, std::uint64_t entry) {
  return stage(phase, offset, bytes_of(be64(entry)));
}

Result<void> Transaction::for_each_change(
    const std::function<Result<void>(const Change&)>& visit) const {
  for (std::size_t phase = 0; phase < phase_count; ++phase) {
    Change change;
    const auto hand_out = [&]() -> Result<void> {
      return change.after.empty() ? Result<void>{} : visit(change);
    };
    for (const auto& [index, patch] : phases_[phase]) {
      const Sector before = TRY(sector_at(index, phase));
      const Sector after = TRY(sector_at(index, phase + 1));
      if (before == after)
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
