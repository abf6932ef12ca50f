// SPDX-License-Identifier: MIT
// QEMU's image locks. A reader tests them and takes none: it must not leave a lock that another
// reader could trip over. A writer holds them, so that QEMU refuses the image meanwhile. QEMU locks
// one byte per permission that it holds, from byte 100 on, and one per permission that it does not
// share, from byte 200 on. QEMU block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE.
#pragma once

#include <coldchain/io/file.hpp>

namespace coldchain::io {

enum class LockNeed {
  read_raw,  // a raw image that is only read: no other process forbids reading
  read,      // also, no other process may write or resize
  write,     // also, no reader forbids writing, as a running machine does
};

// An error of code `locked` with QEMU's words if another process is in the way.
[[nodiscard]] Result<void> test_locks(const File& file, LockNeed need);

// Holds the locks as QEMU does for an image that it writes to: no other process may write or
// resize. The locks are set first and tested then, so that at most one of two simultaneous callers
// succeeds.
[[nodiscard]] Result<void> hold_write_locks(const File& file);

// Holds them as QEMU does for a backing file that it reads from: others may read it, too.
[[nodiscard]] Result<void> hold_read_locks(const File& file);

}  // namespace coldchain::io
