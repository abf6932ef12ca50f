// SPDX-License-Identifier: MIT
// What is drawn is drawn with fixed seeds: COLDCHAIN_ORACLE_FIRST says from which on, and
// COLDCHAIN_ORACLE_CASES how many.
#pragma once

#include <cstdint>
#include <cstdlib>

#include <doctest/doctest.h>

namespace coldchain::testing {

inline std::uint64_t number_in(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Calls `work` with so many seeds, one after the other.
template <class Work>
void for_each_seed(std::uint64_t otherwise, const Work& work) {
  const std::uint64_t first = number_in("COLDCHAIN_ORACLE_FIRST", 1);
  const std::uint64_t count = number_in("COLDCHAIN_ORACLE_CASES", otherwise);
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    CAPTURE(seed);
    work(seed);
  }
}

// Of what is tried on many images: how often it was carried out, and how often refused.
struct Tally {
  unsigned done = 0;
  unsigned refused = 0;
  void add(bool is_done) { ++(is_done ? done : refused); }
  // A test in which nearly all is refused says nothing.
  void check() const {
    MESSAGE(done << " done, " << refused << " refused");
    CHECK(done > refused);
  }
};

}  // namespace coldchain::testing
