// SPDX-License-Identifier: MIT
// A commit changes two images, each with a journal; the one at the top leads. Either image leads to
// the commit, if a journal that is believed names both.
#pragma once

#include "change.hpp"
#include "world.hpp"

#include <optional>
#include <string>

#include <coldchain/edit/journal.hpp>

namespace coldchain::cli {

struct PendingCommit {
  std::string top;
  io::FileIdentity top_file;
  bool is_of_top = false;      // which is the image that was looked at, not the base
  std::uint64_t base = 0;      // as journals know it
  edit::ChangeFacts change{};  // of the top, or of the base where that alone has a journal
};

// Nothing where no commit is pending in the image, or it cannot be opened. `refused` where only a
// journal of another image that is not believed names this one: the message has the command that
// resumes the other one.
[[nodiscard]] Result<std::optional<PendingCommit>> find_pending_commit(const TargetOptions& image,
                                                                       World& world);

}  // namespace coldchain::cli
