// SPDX-License-Identifier: MIT
// Bytes in memory as a File: for callers that already hold an image, for tests and for fuzzing.
#pragma once

#include <coldchain/io/file.hpp>

namespace coldchain::io {

class MemoryFile final : public WritableFile {
 public:
  // `number` becomes the identity, so that two memory files differ.
  explicit MemoryFile(Bytes content, std::uint64_t number = 0);

  [[nodiscard]] const FileStatus& status() const override { return status_; }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override;
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override;
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override;
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override;
  [[nodiscard]] Result<void> write_at(HostOffset offset, ByteView bytes) override;
  [[nodiscard]] Result<void> resize(std::uint64_t size) override;
  [[nodiscard]] Result<void> flush() override;
  [[nodiscard]] Result<void> refresh() override;
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override;

  [[nodiscard]] const Bytes& content() const { return content_; }

 private:
  Bytes content_;
  FileStatus status_;
};

}  // namespace coldchain::io
