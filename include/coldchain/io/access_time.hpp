// SPDX-License-Identifier: MIT
// The access time of what is read. Only the owner of a file or folder, and root, may read it
// without changing its access time (open(2), O_NOATIME). Others change it, unless the file system
// is mounted read-only or with noatime. Nothing here covers symbolic links, or servers that keep
// access times of their own.
#pragma once

#include <functional>
#include <string>

#include <coldchain/base/result.hpp>

namespace coldchain::io {

// Called before a file or folder is opened whose access time that may change. With an error, it is
// not opened. Several threads may call at once. An empty guard accepts the change.
using AccessTimeGuard = std::function<Result<void>(const std::string& path)>;

}  // namespace coldchain::io
