// SPDX-License-Identifier: MIT
// The outcome of everything that can fail: a value or an Error. The library throws nothing.
#pragma once

#include <string>
#include <utility>

#include <coldchain/base/error.hpp>

#include <tl/expected.hpp>

namespace coldchain {

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return fail(Error{code, std::move(message), 0});
}

}  // namespace coldchain
