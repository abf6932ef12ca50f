// SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
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

Result<void> MemoryFile::write_at(HostOffset offset, ByteView bytes) {
  if (const std::uint64_t end = offset.value + bytes.size(); end > content_.size())
    TRY(resize(end));
  std::copy(bytes.begin(), bytes.end(),
            content_.begin() + static_cast<std::ptrdiff_t>(offset.value));
  ++status_.modified.seconds;
  return {};
}

Result<void> MemoryFile::resize(std::uint64_t size) {
  content_.resize(size);
  status_.size = size;
  status_.allocated = align_up(size, 512);
  ++status_.modified.seconds;
  return {};
}

Result<void> MemoryFile::flush() {
  return {};
}

Result<void> MemoryFile::refresh() {
  return {};
}

Result<void> MemoryFile::hold_lock(std::uint64_t /*byte*/) const {
  return {};
}

}  // namespace coldchain::io
