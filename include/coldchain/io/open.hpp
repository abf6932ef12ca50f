// SPDX-License-Identifier: MIT
// Opening files by name under a policy. Only regular files and block devices are ever opened,
// read-only unless open_writable() is called, without blocking on a FIFO and, where the system
// permits, without changing the access time. Names are bytes. A FileSource is where `graph` gets
// its files from; the real one asks the system, others serve from memory.
#pragma once

#include <memory>
#include <string>

#include <coldchain/io/access_time.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::io {

// What may be opened. `root` and `sysroot` exclude each other.
struct OpenPolicy {
  // Nothing outside this directory. Absolute names with this prefix are opened beneath it, and the
  // kernel keeps every symbolic link on the way inside (openat2, or a refusal).
  std::string root;
  // All names and symbolic links are read inside this directory, as if it were "/" (openat2, or a
  // refusal): a mounted evidence tree.
  std::string sysroot;
  // Whether backing and data files are opened at all.
  bool follow = true;
  // An operand: takes the place of the first backing file of a chain that is missing, because it
  // was moved. Empty: none does.
  std::string moved_backing;
  // Whether the links of an image whose format was only probed are followed.
  bool allow_probe = false;
  // Whether an image that another process writes to is refused (QEMU's locks).
  bool test_locks = true;
  // Whether reserved extents that hold nothing yet are holes in any case. Else the system tells:
  // to it, as to QEMU, they are data while the page cache has a copy of their zeros.
  bool steady_holes = false;
  // Called with an operand: before the file, or the folder that is scanned, is opened.
  AccessTimeGuard access_time_guard;
};

class FileSource {
 public:
  FileSource() = default;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  virtual ~FileSource() = default;

  // An operand is what a user types, or what the system says of a file. A name is what the
  // functions below take, and what an image records. They differ under a sysroot: there a name is a
  // path inside it.

  // The name of an operand. An operand that lies beneath the sysroot on the host is that file;
  // another absolute one is read inside the sysroot. Errors: refused (a relative one outside it).
  [[nodiscard]] virtual Result<std::string> name_of(const std::string& operand) const = 0;

  // An operand that has this name.
  [[nodiscard]] virtual std::string operand_of(const std::string& name) const = 0;

  // Where the folder of that name lies on the host, without symbolic links. Errors as of open().
  [[nodiscard]] virtual Result<std::string> real_folder(const std::string& name) const = 0;

  // As open() of the operand's name.
  [[nodiscard]] Result<std::unique_ptr<File>> open_operand(const std::string& operand) const;

  // Errors: not_found, permission_denied, refused (outside the root), invalid_argument (a
  // directory, FIFO, socket or character device), io_error. The message does not repeat the name.
  [[nodiscard]] virtual Result<std::unique_ptr<File>> open(const std::string& path) const = 0;
};

// The files of this machine. Fails if the root or sysroot is not a directory.
[[nodiscard]] Result<std::unique_ptr<FileSource>> system_files(const OpenPolicy& policy);

}  // namespace coldchain::io
