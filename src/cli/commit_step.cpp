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
  return top || base ? CommitStep::go_on : CommitStep::begin;
}

}  // namespace coldchain::cli
