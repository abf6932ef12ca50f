// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/io/overlay_file.hpp>

namespace coldchain::io {

const OverlayFile::Sector* OverlayFile::find(std::uint64_t index) const {
  const auto found = sectors_.find(index);
  return found == sectors_.end() ? nullptr : &found->second;
}

Result<std::size_t> OverlayFile::read_at(HostOffset offset, ByteSpan buffer) const {
  if (offset.value >= status_.size || buffer.empty())
    return 0;
  buffer = buffer.first(std::min<std::uint64_t>(buffer.size(), status_.size - offset.value));
  const std::size_t below = TRY(base_->read_at(offset, buffer));
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(below), buffer.end(), std::byte{0});
  const std::uint64_t end = offset.value + buffer.size();
  for (auto at = sectors_.lower_bound(offset.value / sector_size);
       at != sectors_.end() && at->first * sector_size < end; ++at) {
    const std::uint64_t begin = at->first * sector_size;
    const std::uint64_t from = std::max(begin, offset.value);
    const std::uint64_t to = std::min(begin + sector_size, end);
    std::copy_n(at->second.begin() + static_cast<std::ptrdiff_t>(from - begin), to - from,
                buffer.begin() + static_cast<std::ptrdiff_t>(from - offset.value));
  }
  return buffer.size();
}

Result<HostOffset> OverlayFile::next_data(HostOffset from) const {
  const HostOffset end{status_.size};
  if (from >= end)
    return end;
  HostOffset found = end;
  if (from.value < base_->size()) {
    found = TRY(base_->next_data(from));
    if (found.value >= base_->size())
      found = end;
  }
  const auto changed = sectors_.lower_bound(from.value / sector_size);
  if (changed != sectors_.end())
    found = std::min(found, std::max(from, HostOffset{changed->first * sector_size}));
  return std::min(found, end);
}

Result<HostOffset> OverlayFile::next_hole(HostOffset from) const {
  const HostOffset end{status_.size};
  HostOffset at = from;
  while (at < end) {
    if (at.value < base_->size())
      at = std::max(at, TRY(base_->next_hole(at)));
    // A hole of the file below, unless there are changes in it.
    const auto changed = sectors_.find(at.value / sector_size);
    if (changed == sectors_.end())
      return std::min(at, end);
    at = {(changed->first + 1) * sector_size};
  }
  return end;
}

}  // namespace coldchain::io
