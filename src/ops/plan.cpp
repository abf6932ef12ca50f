// SPDX-License-Identifier: MIT
#include <coldchain/ops/plan.hpp>

namespace coldchain::ops {

namespace {

constexpr std::string_view detection = " --detect-zeroes";

}  // namespace

std::string verb_of(std::string_view command, bool detects_zeroes) {
  return std::string(command) + std::string(detects_zeroes ? detection : "");
}

bool detects_zeroes(std::string_view verb) {
  return verb.ends_with(detection);
}

}  // namespace coldchain::ops
