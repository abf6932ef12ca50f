// SPDX-License-Identifier: MIT
// A regular file or block device behind a file descriptor. Reads with pread: with a mapping, an I/O
// error would be a signal.
#pragma once

#include <memory>
#include <utility>

#include <coldchain/io/access_time.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::io {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  // The number, which somebody else closes.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// Where the file or folder behind a descriptor lies now; `not_found` where it was deleted.
[[nodiscard]] Result<Location> location_of(int fd);

// What identifies a block device after the next boot, too, as far as the system knows it.
[[nodiscard]] FileIdentity lasting_identity_of_device(std::uint32_t major_number,
                                                      std::uint32_t minor_number);

// Opens the file or folder behind a descriptor again, for reading, and leaves its access time as it
// is if the system permits that. `path` is for the guard.
[[nodiscard]] Result<Descriptor> open_to_read(int fd, const std::string& path,
                                              const AccessTimeGuard& guard);

// Takes a descriptor opened with O_PATH, looks at what it is, and opens it with open_to_read().
// `steady_holes` as in OpenPolicy.
[[nodiscard]] Result<std::unique_ptr<File>> open_descriptor(const Descriptor& path_descriptor,
                                                            const std::string& path,
                                                            const AccessTimeGuard& guard,
                                                            bool steady_holes);

// A regular file that was opened for reading; or opened, or made, for reading and writing.
[[nodiscard]] Result<std::unique_ptr<File>> adopt(Descriptor descriptor);
[[nodiscard]] Result<std::unique_ptr<WritableFile>> adopt_for_writing(Descriptor descriptor);

}  // namespace coldchain::io
