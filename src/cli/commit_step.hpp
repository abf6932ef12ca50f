// SPDX-License-Identifier: MIT
// A commit changes two images, each with a side file: what their states say that is to be done
// next.
#pragma once

#include <optional>

#include <coldchain/edit/journal.hpp>

namespace coldchain::cli {

enum class CommitStep {
  begin,      // nothing is pending
  go_on,      // with the copy
  empty_top,  // the base has all, and the top knows it
  put_away,   // both are done; side files are left
  go_back,    // it was being given up
};

// Without a state there is no side file.
[[nodiscard]] CommitStep next_step(std::optional<edit::JournalState> top,
                                   std::optional<edit::JournalState> base);

}  // namespace coldchain::cli
