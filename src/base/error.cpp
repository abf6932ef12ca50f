// SPDX-License-Identifier: MIT
#include <cerrno>
#include <system_error>

#include <coldchain/base/error.hpp>

#include <fmt/format.h>

namespace coldchain {

namespace {

ErrorCode code_of(int errno_value) {
  switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::not_found;
    case EACCES:
    case EPERM:
      return ErrorCode::permission_denied;
    case EXDEV:
      return ErrorCode::refused;
    default:
      return ErrorCode::io_error;
  }
}

}  // namespace

Error system_error(int errno_value, std::string_view what) {
  const std::string reason = std::generic_category().message(errno_value);
  return {code_of(errno_value), what.empty() ? reason : fmt::format("{}: {}", what, reason),
          errno_value};
}

Error with_context(Error error, std::string_view context) {
  error.message = fmt::format("{}: {}", context, error.message);
  return error;
}

}  // namespace coldchain
