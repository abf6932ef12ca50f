// SPDX-License-Identifier: MIT
// Decides whether a journal is believed, that is, whether its content may decide what is written. A
// journal of records changes only its own image, so the owner of the image may have made it. A
// change that is planned again reads and writes other files by the names in image headers, so its
// journal is believed only if the caller or root owns it. docs/SECURITY.md.
#pragma once

#include <cstdint>
#include <string>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::edit {

// The owner and permissions of the open journal file.
struct Authorship {
  std::uint32_t owner = 0;        // user of the journal
  std::uint32_t mode = 0;         // permission bits
  std::uint32_t links = 1;        // names
  std::uint32_t image_owner = 0;  // user of the image
  std::uint32_t caller = 0;       // user who runs coldchain
};

[[nodiscard]] Authorship authorship_of(const io::FileStatus& journal, std::uint32_t image_owner);

enum class Belief {
  believed,
  several_names,     // another image may have it, too
  others_may_write,  // by its permission bits
  foreign,           // another user owns it
};

[[nodiscard]] Belief belief_in(const Authorship& authorship, bool is_planned_again);

// The reason why a journal is not believed, without its path. Only for a journal that is not
// believed.
[[nodiscard]] std::string reason_for(Belief belief, const Authorship& authorship,
                                     bool is_planned_again);

// "root", "libvirt-qemu", or "user 64055" where the system knows no name.
[[nodiscard]] std::string name_of_user(std::uint32_t user);

// The prefix of a command that this user has to run: "sudo -u NAME ", "sudo " for root.
[[nodiscard]] std::string as_user(std::uint32_t user);

}  // namespace coldchain::edit
