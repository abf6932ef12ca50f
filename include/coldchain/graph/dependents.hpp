// SPDX-License-Identifier: MIT
// Who else reads an image: all images in some folders whose chain goes through it, found by what
// their headers name. For those who are about to change what it shows.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

struct DependentsRequest {
  std::vector<std::string> directories;
  io::FileIdentity image;               // which is asked for
  std::vector<io::FileIdentity> known;  // are not told, but what reads through them is
  io::FileIdentity top;                 // is not told, nor what reads through it
};

struct Dependents {
  std::vector<std::string> paths;
  std::vector<Error> unreadable;  // folders and files that could not be looked at
};

[[nodiscard]] Result<Dependents> find_dependents(const io::FileSource& files,
                                                 const io::OpenPolicy& policy,
                                                 const DependentsRequest& request,
                                                 unsigned workers);

}  // namespace coldchain::graph
