// SPDX-License-Identifier: MIT
// Finds the other images that read through an image: all images in some folders whose chain
// contains it, by the names in their headers. A change of the image would change the data that they
// show.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

struct DependentsRequest {
  std::vector<std::string> directories;
  io::FileIdentity image;               // the image that others may read
  std::vector<io::FileIdentity> known;  // not reported; images that read through them are
  io::FileIdentity top;                 // not reported, and neither are images that read through it
};

struct Dependents {
  std::vector<std::string> paths;
  std::vector<Error> unreadable;  // folders and files that could not be read
};

[[nodiscard]] Result<Dependents> find_dependents(const io::FileSource& files,
                                                 const io::OpenPolicy& policy,
                                                 const DependentsRequest& request,
                                                 unsigned workers);

}  // namespace coldchain::graph
