// SPDX-License-Identifier: MIT
// An image as a journal would leave it, forward or back. The bytes stay in the journal, so that a
// large one, or one that is mostly holes, takes no memory.
#pragma once

#include <array>
#include <memory>

#include <coldchain/edit/journal.hpp>

namespace coldchain::edit {

class RolledFile final : public io::File {
 public:
  // `image` outlives the file; both are as they were when the journal was compared with the image.
  RolledFile(std::shared_ptr<const Journal> journal, const io::File& image, bool is_forward);

  [[nodiscard]] const io::FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override;
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override;
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override;
  [[nodiscard]] Result<io::Location> location() const override { return image_.location(); }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return image_.lock_is_held(byte);
  }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    return image_.hold_lock(byte);
  }

 private:
  // Records of one phase, which come by offset and do not overlap.
  struct Records {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  [[nodiscard]] HostRange range_of(std::size_t record) const;
  // The first of them that ends behind `offset`; `records.end` where there is none.
  [[nodiscard]] std::size_t first_behind(const Records& records, HostOffset offset) const;
  [[nodiscard]] Result<void> read_records(const Records& records, HostRange range,
                                          ByteSpan buffer) const;

  std::shared_ptr<const Journal> journal_;
  const io::File& image_;
  bool is_forward_;
  io::FileStatus status_;
  std::array<Records, phase_count> phases_{};
};

}  // namespace coldchain::edit
