// SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include <coldchain/base/checked.hpp>
#include <coldchain/io/memory_file.hpp>

namespace coldchain::io {

MemoryFile::MemoryFile(Bytes content, std::uint64_t number) : content_(std::move(content)) {
  status_.kind = FileKind::memory;
  status_.size = content_.size();
  status_.allocated = align_up(content_.size(), 512);
  status_.identity = {~0ULL, number};
  status_.mode = 0600;
}

Result<std::size_t> MemoryFile::read_at(HostOffset offset, ByteSpan buffer) const {
  if (offset.value >= content_.size())
    return 0;
  const std::size_t count = std::min(buffer.size(), content_.size() - offset.value);
  std::copy_n(content_.begin() + static_cast<std::ptrdiff_t>(offset.value), count, buffer.begin());
  return count;
}

Result<HostOffset> MemoryFile::next_data(HostOffset from) const {
  return std::min(from, HostOffset{content_.size()});
}

Result<HostOffset> MemoryFile::next_hole(HostOffset /*from*/) const {
  return HostOffset{content_.size()};
}

Result<bool> MemoryFile::lock_is_held(std::uint64_t /*byte*/) const {
  return false;
}

}  // namespace coldchain::io
