// SPDX-License-Identifier: MIT
// QEMU's image locks, tested but never taken: a reader that may not write must not leave a lock
// that another reader could trip over. QEMU locks one byte per permission that it holds, from byte
// 100 on, and one per permission that it does not share, from byte 200 on.
// QEMU block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE.
#pragma once

#include <coldchain/io/file.hpp>

namespace coldchain::io {

enum class LockNeed {
  consistent_read,  // a raw image: nobody may forbid reading
  exclusive_write,  // a format with metadata: nobody may write or resize either
};

// An error of code `locked` with QEMU's words if another process is in the way.
[[nodiscard]] Result<void> test_locks(const File& file, LockNeed need);

}  // namespace coldchain::io
