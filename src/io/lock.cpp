// SPDX-License-Identifier: MIT
#include <array>
#include <initializer_list>

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

struct Permission {
  std::uint64_t number;
  const char* name;
};
constexpr Permission consistent_read_permission{consistent_read, "consistent read"};
constexpr Permission write_permission{write, "write"};
constexpr Permission resize_permission{resize, "resize"};

// Nobody else gets what is not shared: writing and resizing.
Result<void> hold(const File& file, std::initializer_list<Permission> needed) {
  constexpr std::array not_shared = {write_permission, resize_permission};
  for (const Permission& permission : needed)
    TRY(file.hold_lock(held_base + permission.number));
  for (const Permission& permission : not_shared)
    TRY(file.hold_lock(not_shared_base + permission.number));
  for (const Permission& permission : needed) {
    if (TRY(file.lock_is_held(not_shared_base + permission.number)))
      return fail(ErrorCode::locked, fmt::format("Failed to get \"{}\" lock", permission.name));
  }
  for (const Permission& permission : not_shared) {
    if (TRY(file.lock_is_held(held_base + permission.number)))
      return fail(ErrorCode::locked,
                  fmt::format("Failed to get shared \"{}\" lock", permission.name));
  }
  return {};
}

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

Result<void> hold_write_locks(const File& file) {
  return hold(file, {consistent_read_permission, write_permission, resize_permission});
}

Result<void> hold_read_locks(const File& file) {
  return hold(file, {consistent_read_permission});
}

}  // namespace coldchain::io
