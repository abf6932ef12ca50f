// SPDX-License-Identifier: MIT
// TRY(expr): the value of a Result, or return its error from the enclosing function. For .cpp
// files only; one per statement. It is a statement expression, which g++ and clang both have.
#pragma once

#include <utility>

#include <coldchain/base/result.hpp>

#define TRY(expr)                                               \
  __extension__({                                               \
    auto try_result_ = (expr);                                  \
    if (!try_result_.has_value()) [[unlikely]]                  \
      return ::coldchain::fail(std::move(try_result_).error()); \
    ::coldchain::detail::take(std::move(try_result_));          \
  })

namespace coldchain::detail {

template <class T>
T take(Result<T>&& result) {
  return std::move(*result);
}

inline void take(Result<void>&&) {}

}  // namespace coldchain::detail
