// SPDX-License-Identifier: MIT
// The one error type of the library: why *we* could not do what was asked (an I/O error, no
// permission, an unsupported feature, a structure too damaged to read on). Damage that does not
// stop the reading is not an Error but a finding (coldchain/finding/finding.hpp).
#pragma once

#include <string>
#include <string_view>

namespace coldchain {

enum class ErrorCode {
  invalid_argument,   // the caller asked for something that makes no sense
  not_found,          // no such file, snapshot or layer
  permission_denied,  // the system said EACCES or EPERM
  io_error,           // the system failed to read
  corrupt,            // the image contradicts itself where it must be read
  not_this_format,    // the bytes are not an image of the requested format
  unsupported,        // valid, but beyond what this library reads
  too_large,          // exceeds a documented limit
  locked,             // another process has the image open
  refused,            // the open policy forbids it
  interrupted,        // a signal asked to stop
};

struct Error {
  ErrorCode code{};
  std::string message;   // lower case, no full stop; names the structure and the number
  int system_errno = 0;  // errno of the failing system call, or 0
};

// What the system said about `errno_value`, behind the words that say what was tried.
[[nodiscard]] Error system_error(int errno_value, std::string_view what);

// The same error with the words of the caller in front: "mid.qcow2: L1 table: ...".
[[nodiscard]] Error with_context(Error error, std::string_view context);

}  // namespace coldchain
