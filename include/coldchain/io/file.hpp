// SPDX-License-Identifier: MIT
// A file as bytes at offsets, with its holes and its system facts: a regular file, a block device,
// or memory. A File is read-only, and several threads may read it at once. A WritableFile is for
// writing, on one thread.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/offsets.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::io {

// The identity of a file: two names of the same file have the same one.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend auto operator<=>(const FileIdentity&, const FileIdentity&) = default;
};

struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  friend auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

enum class FileKind { regular, block_device, memory };

struct FileStatus {
  FileKind kind = FileKind::memory;
  std::uint64_t size = 0;       // bytes that can be read; a block device's by ioctl
  std::uint64_t allocated = 0;  // bytes of storage: st_blocks * 512; 0 for a block device
  std::uint32_t sector_size = 512;
  bool is_read_only = false;  // of a block device
  FileIdentity identity;
  // The same, and the same after the next boot. Of a block device made of the name that the system
  // or its maker gave it; of its number, where it has none.
  FileIdentity lasting_identity;
  std::uint32_t links = 1;  // names of a regular file
  std::uint32_t mode = 0;   // permission bits
  std::uint32_t owner = 0;
  std::uint32_t group = 0;
  Timestamp accessed, modified, changed;
  std::optional<Timestamp> born;
};

// Where a file lies once symbolic links are followed.
struct Location {
  std::string folder;  // absolute
  std::string name;    // in that folder
};

class WritableFile;

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;

  // As it was when the file was opened, or last refreshed.
  [[nodiscard]] virtual const FileStatus& status() const = 0;

  // Reads as much of `buffer` as the file has from `offset` on; less only at the end of the file.
  [[nodiscard]] virtual Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const = 0;

  // The first byte at or after `from` that is not in a hole, and the first that is; the size of the
  // file where there is none. Holes read as zeros; not every file knows its holes.
  [[nodiscard]] virtual Result<HostOffset> next_data(HostOffset from) const = 0;
  [[nodiscard]] virtual Result<HostOffset> next_hole(HostOffset from) const = 0;

  // The parts of a range without storage: holes and parts after the end, except storage that is
  // reserved, if the system reports that.
  [[nodiscard]] virtual Result<std::uint64_t> bytes_without_storage(HostRange range) const;

  // Whether QEMU's lock byte `byte` is held by another process (coldchain/io/lock.hpp).
  [[nodiscard]] virtual Result<bool> lock_is_held(std::uint64_t byte) const = 0;

  // Holds that byte, shared, until the file is closed.
  [[nodiscard]] virtual Result<void> hold_lock(std::uint64_t byte) const = 0;

  // What SELinux calls the file; nothing if it has no label, or the system cannot tell.
  [[nodiscard]] virtual std::optional<std::string> security_label() const { return std::nullopt; }

  // Both refer to the open file, even if its names lead to another file now, so that no other file
  // can replace it. The folder of the file: `not_found` if the file was deleted.
  [[nodiscard]] virtual Result<Location> location() const;
  // The same file, open for writing, too. `locked` where a block device is mounted or held.
  [[nodiscard]] virtual Result<std::unique_ptr<WritableFile>> open_for_writing() const;

  [[nodiscard]] std::uint64_t size() const { return status().size; }
};

class WritableFile : public File {
 public:
  // If the system can do it, writes of many bytes bypass the page cache. Their number, offset and
  // address must be multiples of this. Making room in the page cache for data that is not read
  // again soon takes longer than the storage itself.
  static constexpr std::size_t direct_alignment = 4096;

  // All of the bytes, or an error. A regular file grows where they reach past its end.
  [[nodiscard]] virtual Result<void> write_at(HostOffset offset, ByteView bytes) = 0;
  // Zeros over a range, without storage behind them where the system can do that.
  [[nodiscard]] virtual Result<void> write_zeroes(HostOffset offset, std::uint64_t size);
  // Storage behind a range within the file, so that no write to it finds the system full; what it
  // holds stays.
  [[nodiscard]] virtual Result<void> reserve(HostRange range);
  // Frees the storage of a range within the file whose content is no longer needed. This is a hint,
  // not a guarantee.
  virtual void discard(HostOffset /*offset*/, std::uint64_t /*size*/) {}
  [[nodiscard]] virtual Result<void> resize(std::uint64_t size) = 0;
  // All data that was written is on the storage when this succeeds.
  [[nodiscard]] virtual Result<void> flush() = 0;
  // Has the system begin to write a range to the storage, so that flush() has less to wait for.
  virtual void start_writeback(HostOffset /*offset*/, std::uint64_t /*size*/) {}
  // Asks the system again what status() says.
  [[nodiscard]] virtual Result<void> refresh() = 0;
};

// Reads a structure as read_at() does. A large one may be nearly all a hole: holes are not read.
[[nodiscard]] Result<std::size_t> read_around_holes(const File& file, HostOffset offset,
                                                    ByteSpan buffer);

// Whether a range that lies within the file is one hole. False where the file does not tell.
[[nodiscard]] bool is_hole(const File& file, HostRange range);

// The whole buffer or an error that says where the file ends. `what` names the structure.
[[nodiscard]] Result<void> read_exactly(const File& file, HostOffset offset, ByteSpan buffer,
                                        std::string_view what);

// The bytes of several ranges that have no storage yet. The ranges do not overlap.
[[nodiscard]] Result<std::uint64_t> bytes_without_storage(const File& file,
                                                          const std::vector<HostRange>& ranges);

// The parts of `range` that are not in holes: sorted, disjoint, within the file.
[[nodiscard]] Result<std::vector<HostRange>> data_ranges(const File& file, HostRange range);

// Zeros, written, wherever a range within the file has holes.
[[nodiscard]] Result<void> fill_holes(WritableFile& file, HostRange range);

// The whole buffer, around holes; what lies past the end of the file reads as zeros.
[[nodiscard]] Result<void> read_table(const File& file, HostOffset offset, ByteSpan buffer);

// What the system could not read of a table. Empty where all went well.
struct Unread {
  std::vector<HostRange> ranges;  // their bytes are zeros in the buffer
  // Of the first attempt. The second attempt reads part by part, and may succeed: storage that
  // reports an error once is not to be relied on.
  std::optional<Error> error;
};
// As read_table(), but a part that cannot be read does not keep the others from being read.
[[nodiscard]] Unread read_table_parts(const File& file, HostOffset offset, ByteSpan buffer);

// The whole buffer; what lies past the end of the file reads as zeros.
[[nodiscard]] Result<void> read_zero_extended(const File& file, HostOffset offset, ByteSpan buffer);

}  // namespace coldchain::io
