// SPDX-License-Identifier: MIT
#include <coldchain/base/try.hpp>
#include <coldchain/io/lock.hpp>

namespace coldchain::io {

namespace {

constexpr std::uint64_t held_base = 100;
constexpr std::uint64_t not_shared_base = 200;
constexpr std::uint64_t consistent_read = 0;
constexpr std::uint64_t write = 1;
constexpr std::uint64_t resize = 3;

}  // namespace

Result<void> test_locks(const File& file, LockNeed need) {
  if (TRY(file.lock_is_held(not_shared_base + consistent_read)))
    return fail(ErrorCode::locked, "Failed to get \"consistent read\" lock");
  if (need == LockNeed::consistent_read)
    return {};
  if (TRY(file.lock_is_held(held_base + write)))
    return fail(ErrorCode::locked, "Failed to get shared \"write\" lock");
  if (TRY(file.lock_is_held(held_base + resize)))
    return fail(ErrorCode::locked, "Failed to get shared \"resize\" lock");
  return {};
}

}  // namespace coldchain::io
