// SPDX-License-Identifier: MIT
// A file of this machine, open for writing as a change opens it.
#pragma once

#include <memory>
#include <string>

#include <coldchain/io/open.hpp>

namespace coldchain::testing {

inline std::unique_ptr<io::WritableFile> open_for_writing(const std::string& path) {
  return io::system_files({}).value()->open(path).value()->open_for_writing().value();
}

}  // namespace coldchain::testing
