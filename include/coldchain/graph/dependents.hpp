// SPDX-License-Identifier: MIT
// Finds the images that depend on an image: all in some folders whose chain goes through it, by the
// names in their headers. A change of the image would change the data that they show.
#pragma once

#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

struct DependentsRequest {
  std::vector<std::string> directories;
  io::FileIdentity image;                 // the image that others may read
  std::vector<io::FileIdentity> known{};  // not reported; images that read through them are
  io::FileIdentity top{};  // not reported, and neither are images that read through it
};

struct Dependent {
  std::string path;
  std::string through;     // the path of the image or file that it names; the image's own: direct
  bool is_direct = false;  // it names the image itself
  bool is_data_file = false;  // as its data file, not as its backing file
};

struct Dependents {
  std::vector<Dependent> images;  // by path
  std::vector<Error> unreadable;  // folders and files that could not be read
  // Links that lead nowhere, or that were not followed. The images with these may depend on it.
  std::vector<Error> unfollowed;

  [[nodiscard]] bool is_complete() const;  // every link in the folders was followed to its end
  [[nodiscard]] std::vector<std::string> paths() const;
};

[[nodiscard]] Result<Dependents> find_dependents(const io::FileSource& files,
                                                 const io::OpenPolicy& policy,
                                                 const DependentsRequest& request,
                                                 unsigned workers);

}  // namespace coldchain::graph
