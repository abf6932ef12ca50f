// SPDX-License-Identifier: MIT
// What a plan says of itself, so that it can be carried out later, and only on the same images.
#pragma once

#include <string>
#include <vector>

#include <coldchain/io/file.hpp>

namespace coldchain::report {

struct PlannedImage {
  std::string filename;
  io::FileStatus status;  // when it was opened
};

struct Planned {
  std::vector<std::string> command;  // VERB and its arguments; empty: this is no plan
  std::vector<PlannedImage> images;  // all that are written to or read
};

}  // namespace coldchain::report
