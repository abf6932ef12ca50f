// SPDX-License-Identifier: MIT
// Bytes in memory as a file of which the storage cannot read some ranges.
#pragma once

#include <algorithm>
#include <vector>

#include <coldchain/io/memory_file.hpp>

namespace coldchain::testing {

class UnreadableFile final : public io::File {
 public:
  UnreadableFile(Bytes content, std::vector<HostRange> faults)
      : file_(std::move(content)), faults_(std::move(faults)) {}

  [[nodiscard]] const io::FileStatus& status() const override { return file_.status(); }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    const HostOffset end = offset + buffer.size();
    const bool fails = std::any_of(faults_.begin(), faults_.end(), [&](const HostRange& fault) {
      return fault.begin < end && offset < fault.end;
    });
    return fails ? fail(system_error(5, "reading the file")) : file_.read_at(offset, buffer);
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    return file_.next_data(from);
  }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    return file_.next_hole(from);
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t /*byte*/) const override { return false; }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t /*byte*/) const override { return {}; }

 private:
  io::MemoryFile file_;
  std::vector<HostRange> faults_;
};

}  // namespace coldchain::testing
