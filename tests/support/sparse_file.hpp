// SPDX-License-Identifier: MIT
// Bytes in memory as a file that knows its holes, and that counts what is read.
#pragma once

#include <algorithm>
#include <atomic>

#include <coldchain/io/memory_file.hpp>

namespace coldchain::testing {

class SparseFile final : public io::File {
 public:
  static constexpr std::uint64_t page = 4096;

  // Pages of zeros are holes, and so is what lies behind the content, up to `size`.
  explicit SparseFile(Bytes content, std::uint64_t size = 0) : content_(std::move(content)) {
    status_.size = std::max<std::uint64_t>(size, content_.size());
    for (std::uint64_t at = 0; at < content_.size(); at += page)
      status_.allocated += is_data(at) ? page : 0;
  }

  // Bytes, since the file was made.
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

  [[nodiscard]] const io::FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    const std::uint64_t size = status_.size - std::min(status_.size, offset.value);
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size));
    for (std::size_t i = 0; i < count; ++i)
      buffer[i] = offset.value + i < content_.size() ? content_[offset.value + i] : std::byte{0};
    bytes_read_ += count;
    return count;
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    return next(from, true);
  }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    return next(from, false);
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t /*byte*/) const override { return false; }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t /*byte*/) const override { return {}; }

 private:
  [[nodiscard]] bool is_data(std::uint64_t offset) const {
    const std::uint64_t begin = std::min<std::uint64_t>(offset / page * page, content_.size());
    return !is_zero(
        ByteView(content_).subspan(begin, std::min<std::uint64_t>(page, content_.size() - begin)));
  }
  [[nodiscard]] HostOffset next(HostOffset from, bool wants_data) const {
    std::uint64_t at = from.value;
    while (at < content_.size() && is_data(at) != wants_data)
      at = at / page * page + page;
    return {at < content_.size() ? at : wants_data ? status_.size : std::max(at, from.value)};
  }

  Bytes content_;
  io::FileStatus status_;
  mutable std::atomic<std::uint64_t> bytes_read_ = 0;
};

}  // namespace coldchain::testing
