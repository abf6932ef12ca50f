// SPDX-License-Identifier: MIT
// A raw image: the file is the guest's disk, optionally only a window of it (`offset` and `size` of
// QEMU's raw driver). Everything in it is the image's own, holes or not.
#pragma once

#include <cstdint>

#include <coldchain/base/result.hpp>
#include <coldchain/io/window_file.hpp>

namespace coldchain::raw {

class Image {
 public:
  // `file` outlives the image. Fails if the window does not lie within the file.
  [[nodiscard]] static Result<Image> open(const io::File& file, const io::Window& window);

  // Rounded up to whole sectors, as QEMU shows it to a guest; the tail reads as zeros.
  [[nodiscard]] std::uint64_t guest_size() const { return (size_ + 511) / 512 * 512; }
  // As libvirt counts it.
  [[nodiscard]] std::uint64_t exact_size() const { return size_; }
  [[nodiscard]] const io::File& file() const { return *file_; }
  [[nodiscard]] HostOffset host_offset(GuestOffset offset) const {
    return {offset_ + offset.value};
  }

  // The same window of the same file.
  [[nodiscard]] bool is_same(const Image& other) const {
    return file_->status().identity == other.file_->status().identity && offset_ == other.offset_ &&
           size_ == other.size_;
  }

  [[nodiscard]] Result<void> read(GuestOffset offset, ByteSpan buffer) const;

 private:
  Image(const io::File& file, std::uint64_t offset, std::uint64_t size)
      : file_(&file), offset_(offset), size_(size) {}

  const io::File* file_;
  std::uint64_t offset_;
  std::uint64_t size_;
};

}  // namespace coldchain::raw
