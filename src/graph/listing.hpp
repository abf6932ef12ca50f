// SPDX-License-Identifier: MIT
// The files below folders, by the names that a FileSource opens them by.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

struct Listing {
  std::vector<std::string> files;         // regular files and block devices
  std::vector<std::string> links;         // symbolic links to such, wherever those are
  std::vector<std::string> folder_links;  // symbolic links to folders that were not listed
  std::vector<std::string> broken_links;  // symbolic links that lead nowhere
  std::vector<Error> unreadable;
};

// `glob`: fnmatch(3), of the names of the files; empty: all. Errors: refused (a folder outside the
// root or sysroot).
[[nodiscard]] Result<Listing> list_folders(const io::FileSource& files,
                                           const io::OpenPolicy& policy,
                                           const std::vector<std::string>& folders,
                                           const std::string& glob);

}  // namespace coldchain::graph
