// SPDX-License-Identifier: MIT
// What a bitmap of an image marks, as QEMU says it.
#pragma once

#include "process.hpp"

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include <coldchain/base/offsets.hpp>

#include <doctest/doctest.h>

namespace coldchain::testing {

// Sorted, disjoint. The image has a qcow2 format, and such a bitmap itself, or a layer below it.
inline std::vector<GuestRange> dirty_ranges(const std::string& folder, const std::string& image,
                                            const std::string& bitmap) {
  // A server removes its socket some time after the last client has left.
  static unsigned number = 0;
  const std::string socket = "nbd" + std::to_string(++number);
  const Process map =
      run_in(folder, "qemu-nbd -r -f qcow2 -B " + bitmap + " -k $PWD/" + socket + " --fork " +
                         image + " && nbdinfo --map=qemu:dirty-bitmap:" + bitmap +
                         " \"nbd+unix:///?socket=$PWD/" + socket + "\"");
  CHECK_MESSAGE(map.err.empty(), map.err);
  std::vector<GuestRange> dirty;
  std::istringstream lines(map.out);
  std::uint64_t begin = 0;
  std::uint64_t length = 0;
  unsigned flags = 0;
  std::string word;
  while (lines >> begin >> length >> flags >> word) {
    if (flags != 0)
      dirty.push_back({{begin}, {begin + length}});
  }
  return dirty;
}

// Whether `ranges`, sorted and disjoint, have all of `part`.
inline bool covers(const std::vector<GuestRange>& ranges, GuestRange part) {
  for (const GuestRange& range : ranges) {
    if (range.begin <= part.begin && part.begin < range.end)
      part.begin = std::min(range.end, part.end);
  }
  return part.begin == part.end;
}

inline bool covers(const std::vector<GuestRange>& ranges, const std::vector<GuestRange>& parts) {
  for (const GuestRange& part : parts) {
    if (!covers(ranges, part))
      return false;
  }
  return true;
}

}  // namespace coldchain::testing
