// SPDX-License-Identifier: MIT
// Whether a journal is believed: whether what it says may decide what is written. A journal of
// records changes nothing but its own image, so the image's owner may have made it. A change that
// is planned again reads and writes other files by the names in image headers, so its journal
// decides only for the user who made it, and for root, who made it himself. docs/SECURITY.md.
#pragma once

#include <cstdint>
#include <string>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::edit {

// Who may have written a journal, as the system says of the file that is open.
struct Authorship {
  std::uint32_t owner = 0;        // user of the journal
  std::uint32_t mode = 0;         // permission bits
  std::uint32_t links = 1;        // names
  std::uint32_t image_owner = 0;  // user of the image
  std::uint32_t caller = 0;       // user who is asked to believe it
};

[[nodiscard]] Authorship authorship_of(const io::FileStatus& journal, std::uint32_t image_owner);

enum class Belief {
  believed,
  several_names,     // another image may have it, too
  others_may_write,  // by its permission bits
  foreign,           // another user owns it
};

[[nodiscard]] Belief belief_in(const Authorship& authorship, bool is_planned_again);

// Why a journal is not believed; the path is not repeated. Only of what is not believed.
[[nodiscard]] std::string reason_for(Belief belief, const Authorship& authorship,
                                     bool is_planned_again);

// "root", "libvirt-qemu", or "user 64055" where the system knows no name.
[[nodiscard]] std::string name_of_user(std::uint32_t user);

// What stands before a command that this user has to run: "sudo -u NAME ", "sudo " for root.
[[nodiscard]] std::string as_user(std::uint32_t user);

}  // namespace coldchain::edit
