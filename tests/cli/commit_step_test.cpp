// SPDX-License-Identifier: MIT
#include "commit_step.hpp"

#include <doctest/doctest.h>

using namespace coldchain;
using cli::CommitStep;
using cli::next_step;
using edit::JournalState;

TEST_CASE("commit step: the states of both side files say what comes next") {
  using State = std::optional<JournalState>;
  struct Row {
    State top;
    State base;
    CommitStep step;
  };
  constexpr auto none = std::nullopt;
  for (const Row& row : {
           Row{none, none, CommitStep::begin},
           Row{JournalState::applying, none, CommitStep::go_on},
           Row{JournalState::writing, none, CommitStep::go_on},
           Row{JournalState::writing, JournalState::applying, CommitStep::go_on},
           Row{JournalState::writing, JournalState::writing, CommitStep::go_on},
           Row{JournalState::writing, JournalState::linking, CommitStep::go_on},
           Row{JournalState::writing, JournalState::done, CommitStep::go_on},
           Row{none, JournalState::writing, CommitStep::go_back},
           Row{none, JournalState::linking, CommitStep::go_back},
           Row{none, JournalState::done, CommitStep::go_back},
           Row{JournalState::linking, JournalState::done, CommitStep::empty_top},
           Row{JournalState::linking, none, CommitStep::empty_top},
           Row{JournalState::done, JournalState::done, CommitStep::put_away},
           Row{JournalState::done, none, CommitStep::put_away},
           Row{JournalState::undoing, JournalState::writing, CommitStep::go_back},
           Row{JournalState::undone, none, CommitStep::go_back},
           Row{JournalState::writing, JournalState::undoing, CommitStep::go_back},
           Row{none, JournalState::undone, CommitStep::go_back},
       })
    CHECK(next_step(row.top, row.base) == row.step);
}
