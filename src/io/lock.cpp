// SPDX-License-Identifier: MIT
#include <array>
#include <span>

#include <coldchain/base/try.hpp>
#include <coldchain/io/lock.hpp>

#include <fmt/format.h>

namespace coldchain::io {

namespace {

constexpr std::uint64_t held_base = 100;
constexpr std::uint64_t not_shared_base = 200;

struct Permission {
  std::uint64_t number;
  const char* name;
};
constexpr Permission consistent_read_permission{0, "consistent read"};
constexpr Permission write_permission{1, "write"};
constexpr Permission resize_permission{3, "resize"};

// What nobody else gets.
constexpr std::array not_shared = {write_permission, resize_permission};

using Permissions = std::span<const Permission>;
constexpr std::array to_read = {consistent_read_permission};
constexpr std::array to_write = {consistent_read_permission, write_permission, resize_permission};

Result<void> test(const File& file, Permissions needed) {
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

Result<void> hold(const File& file, Permissions needed) {
  for (const Permission& permission : needed)
    TRY(file.hold_lock(held_base + permission.number));
  for (const Permission& permission : not_shared)
    TRY(file.hold_lock(not_shared_base + permission.number));
  return test(file, needed);
}

}  // namespace

Result<void> test_locks(const File& file, LockNeed need) {
  if (need == LockNeed::write)
    return test(file, to_write);
  if (need == LockNeed::read)
    return test(file, to_read);
  if (TRY(file.lock_is_held(not_shared_base + consistent_read_permission.number)))
    return fail(ErrorCode::locked, "Failed to get \"consistent read\" lock");
  return {};
}

Result<void> hold_write_locks(const File& file) {
  return hold(file, to_write);
}

Result<void> hold_read_locks(const File& file) {
  return hold(file, to_read);
}

}  // namespace coldchain::io
