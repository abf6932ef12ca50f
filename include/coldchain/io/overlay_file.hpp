// SPDX-License-Identifier: MIT
// A file as it would be after changes that are kept in memory: reads see them, the file below is
// never written to.
#pragma once

#include <array>
#include <map>

#include <coldchain/io/file.hpp>

namespace coldchain::io {

class OverlayFile final : public File {
 public:
  static constexpr std::uint64_t sector_size = 512;
  using Sector = std::array<std::byte, sector_size>;

  // `base` outlives the overlay.
  explicit OverlayFile(const File& base) : base_(&base), status_(base.status()) {}

  // Replaces sector `index`, whole.
  void put(std::uint64_t index, const Sector& sector) { sectors_[index] = sector; }
  // That sector, if it was replaced.
  [[nodiscard]] const Sector* find(std::uint64_t index) const;
  void resize(std::uint64_t size) { status_.size = size; }
  // Storage that the file is going to take.
  void allocate(std::uint64_t bytes) { status_.allocated += bytes; }
  // As if nothing had been changed.
  void reset() {
    sectors_.clear();
    status_ = base_->status();
  }

  [[nodiscard]] const FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override;
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override;
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override;
  [[nodiscard]] Result<Location> location() const override { return base_->location(); }
  [[nodiscard]] std::optional<std::string> security_label() const override {
    return base_->security_label();
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return base_->lock_is_held(byte);
  }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    return base_->hold_lock(byte);
  }

 private:
  const File* base_;
  FileStatus status_;
  std::map<std::uint64_t, Sector> sectors_;
};

}  // namespace coldchain::io
