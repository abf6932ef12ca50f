// SPDX-License-Identifier: MIT
#include <array>
#include <utility>

#include <coldchain/base/try.hpp>
#include <coldchain/io/lock.hpp>

#include <fmt/format.h>

namespace coldchain::io {

namespace {

constexpr std::uint64_t held_base = 100;
constexpr std::uint64_t not_shared_base = 200;
constexpr std::uint64_t consistent_read = 0;
constexpr std::uint64_t write = 1;
constexpr std::uint64_t resize = 3;

constexpr std::array<std::pair<std::uint64_t, const char*>, 3> needed = {
    {{consistent_read, "consistent read"}, {write, "write"}, {resize, "resize"}}};
constexpr std::array<std::pair<std::uint64_t, const char*>, 2> not_shared = {
    {{write, "write"}, {resize, "resize"}}};

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

Result<void> hold_write_locks(WritableFile& file) {
  for (const auto& [permission, name] : needed)
    TRY(file.hold_lock(held_base + permission));
  for (const auto& [permission, name] : not_shared)
    TRY(file.hold_lock(not_shared_base + permission));
  for (const auto& [permission, name] : needed) {
    if (TRY(file.lock_is_held(not_shared_base + permission)))
      return fail(ErrorCode::locked, fmt::format("Failed to get \"{}\" lock", name));
  }
  for (const auto& [permission, name] : not_shared) {
    if (TRY(file.lock_is_held(held_base + permission)))
      return fail(ErrorCode::locked, fmt::format("Failed to get shared \"{}\" lock", name));
  }
  return {};
}

}  // namespace coldchain::io
