// SPDX-License-Identifier: MIT
// What `plan` writes down of itself, and what `apply` holds a change to.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::cli {

// What `apply` was given: a plan file holds none of it (consent.hpp).
struct Consent {
  bool force = false;
  bool allow_probe = false;
  bool unreadable_are_zeros = false;
  std::optional<std::string> format{};
  edit::SideFolders folders{};
  bool shows_progress = false;
  std::optional<std::string> rate{};  // instead of the one that was planned
};

struct Agreement {
  std::vector<std::string> command;   // VERB and its arguments
  std::string plan;                   // JSON, as `plan` printed it; empty while that goes on
  Consent consent{};                  // of `apply`
  std::vector<std::string> images{};  // given to `apply`: nothing else may be written to
};

// Of the text of a file that anybody may have written: `corrupt` where it is no plan.
[[nodiscard]] Result<Agreement> read_agreement(std::string text);

// Before the first write: `plan` gives what was just planned. `refused`, naming the first
// difference, where that is not what was agreed upon, if anything was.
[[nodiscard]] Result<void> check_agreed(const std::optional<Agreement>& agreement,
                                        const std::function<Result<std::string>()>& plan);

// The same of a change that was begun before, by the digest of its plan. `operand` is the image for
// the command that ends it.
[[nodiscard]] Result<void> check_agreed_digest(const std::optional<Agreement>& agreement,
                                               const edit::PlanDigest& digest,
                                               const std::string& operand);

}  // namespace coldchain::cli
