// SPDX-License-Identifier: MIT
// Opens files as another user: root in all else, so that one test can make the files and look at
// them. It is the current thread that does, and the threads that it starts.
#pragma once

#include <doctest/doctest.h>
#include <sys/fsuid.h>
#include <unistd.h>

namespace coldchain::testing {

constexpr uid_t other_user = 65533;

inline bool is_root() {
  if (::geteuid() == 0)
    return true;
  MESSAGE("skipped: only root can be another user");
  return false;
}

class AsOtherUser {
 public:
  // This drops CAP_FOWNER and CAP_DAC_OVERRIDE, too, and back (capabilities(7)).
  AsOtherUser() { ::setfsuid(other_user); }
  AsOtherUser(const AsOtherUser&) = delete;
  AsOtherUser& operator=(const AsOtherUser&) = delete;
  ~AsOtherUser() { ::setfsuid(0); }
};

}  // namespace coldchain::testing
