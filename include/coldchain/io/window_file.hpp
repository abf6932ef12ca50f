// SPDX-License-Identifier: MIT
// A part of a file as a file of its own: `offset` and `size` of QEMU's raw driver. It is read, and
// never written: a file that holds more than one image has no place for the journal of one.
#pragma once

#include <memory>
#include <optional>

#include <coldchain/io/file.hpp>

namespace coldchain::io {

// In bytes. Without a size, the window ends with the file.
struct Window {
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> size = std::nullopt;

  [[nodiscard]] bool is_whole() const { return offset == 0 && !size; }
};

// Where the window lies. Fails, with QEMU's messages, if it is not within the file.
[[nodiscard]] Result<HostRange> range_of(const Window& window, const File& file);

class WindowFile final : public File {
 public:
  // `range` lies within the file.
  WindowFile(std::unique_ptr<File> file, HostRange range);

  // The file that the window is in. Nothing else can be called afterwards.
  [[nodiscard]] std::unique_ptr<File> take_file() { return std::move(file_); }

  // The facts of the whole file, but for the size.
  [[nodiscard]] const FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override;
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override;
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override;
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return file_->lock_is_held(byte);
  }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    return file_->hold_lock(byte);
  }
  [[nodiscard]] Result<Location> location() const override;
  [[nodiscard]] std::optional<std::string> security_label() const override {
    return file_->security_label();
  }
  [[nodiscard]] Result<std::unique_ptr<WritableFile>> open_for_writing() const override;

 private:
  std::unique_ptr<File> file_;
  HostOffset begin_;
  FileStatus status_;
};

// Why it is not written.
[[nodiscard]] Error window_is_read_only();

}  // namespace coldchain::io
