// SPDX-License-Identifier: MIT
// What a pull does, or would do, and what it costs.
#pragma once

#include <optional>
#include <string>

#include <coldchain/ops/pull.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/planned.hpp>

namespace coldchain::report {

struct PullFacts {
  const ops::Pull* pull = nullptr;
  std::string image;                        // as it was given
  std::optional<std::string> backing_file;  // afterwards
  std::optional<ops::Allocation> allocation{};
  bool is_plan = false;
  Planned planned{};
};

[[nodiscard]] std::string pull_text(const PullFacts& facts);
[[nodiscard]] std::string pull_json(const PullFacts& facts);

// Warnings that the owner must see, also with -q.
[[nodiscard]] std::string pull_warnings(const PullFacts& facts);

}  // namespace coldchain::report
