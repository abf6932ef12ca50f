// SPDX-License-Identifier: MIT
// Files in memory that record what is done to them, and what would be found there if the machine
// stopped at any moment: everything up to the last flush, and of what came after it any part.
#pragma once

#include <random>
#include <vector>

#include <coldchain/io/memory_file.hpp>

namespace coldchain::testing {

struct CrashStep {
  enum class Kind { write, resize, flush };
  std::size_t file = 0;
  Kind kind{};
  std::uint64_t offset = 0;  // of a write; the size for a resize
  Bytes bytes{};
};

using CrashLog = std::vector<CrashStep>;

// Records into a log that several files share.
class CrashFile final : public io::WritableFile {
 public:
  CrashFile(Bytes content, std::size_t number, CrashLog& log)
      : file_(std::move(content), number), number_(number), log_(log) {}

  [[nodiscard]] const Bytes& content() const { return file_.content(); }

  [[nodiscard]] const io::FileStatus& status() const override { return file_.status(); }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    return file_.read_at(offset, buffer);
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    return file_.next_data(from);
  }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    return file_.next_hole(from);
  }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return file_.lock_is_held(byte);
  }
  [[nodiscard]] Result<void> write_at(HostOffset offset, ByteView bytes) override {
    log_.push_back(
        {number_, CrashStep::Kind::write, offset.value, Bytes(bytes.begin(), bytes.end())});
    return file_.write_at(offset, bytes);
  }
  [[nodiscard]] Result<void> resize(std::uint64_t size) override {
    log_.push_back({number_, CrashStep::Kind::resize, size});
    return file_.resize(size);
  }
  [[nodiscard]] Result<void> flush() override {
    log_.push_back({number_, CrashStep::Kind::flush});
    return {};
  }
  [[nodiscard]] Result<void> refresh() override { return {}; }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    return file_.hold_lock(byte);
  }

 private:
  io::MemoryFile file_;
  std::size_t number_;
  CrashLog& log_;
};

// What file `number`, which held `before`, holds if all stops when `steps` of the log are done. Of
// what was not flushed, `keeps` says for each sector whether it has reached the storage.
template <class Keeps>
[[nodiscard]] Bytes after_crash(const CrashLog& log, std::size_t steps, std::size_t number,
                                const Bytes& before, Keeps&& keeps) {
  constexpr std::size_t sector = 512;
  std::size_t flushed = 0;
  for (std::size_t i = 0; i < steps; ++i) {
    if (log[i].file == number && log[i].kind == CrashStep::Kind::flush)
      flushed = i;
  }
  Bytes bytes = before;
  for (std::size_t i = 0; i < steps; ++i) {
    const CrashStep& step = log[i];
    if (step.file != number || step.kind == CrashStep::Kind::flush)
      continue;
    if (step.kind == CrashStep::Kind::resize) {
      if (i < flushed || keeps())
        bytes.resize(step.offset);
      continue;
    }
    for (std::size_t done = 0; done < step.bytes.size();) {
      const std::size_t at = step.offset + done;
      const std::size_t count = std::min(step.bytes.size() - done, sector - at % sector);
      if (i < flushed || keeps()) {
        bytes.resize(std::max(bytes.size(), at + count));
        std::copy_n(step.bytes.begin() + static_cast<std::ptrdiff_t>(done), count,
                    bytes.begin() + static_cast<std::ptrdiff_t>(at));
      }
      done += count;
    }
  }
  return bytes;
}

}  // namespace coldchain::testing
