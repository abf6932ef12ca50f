// SPDX-License-Identifier: MIT
#include "commit_step.hpp"

namespace coldchain::cli {

using edit::JournalState;

CommitStep next_step(std::optional<JournalState> top, std::optional<JournalState> base) {
  for (const std::optional<JournalState>& state : {top, base}) {
    if (state == JournalState::undoing || state == JournalState::undone)
      return CommitStep::go_back;
  }
  // The side file of the top leads, whatever that of the base says.
  if (top == JournalState::done)
    return CommitStep::put_away;
  if (top == JournalState::linking)
    return CommitStep::empty_top;
  if (top)
    return CommitStep::go_on;
  // The side file of the top is the first to come and the last to go, unless the commit is given
  // up. Who reads the base since then expects it to stay as it is.
  return base ? CommitStep::go_back : CommitStep::begin;
}

}  // namespace coldchain::cli
