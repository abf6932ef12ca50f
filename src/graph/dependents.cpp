// SPDX-License-Identifier: MIT
#include <algorithm>
#include <set>

#include <coldchain/base/try.hpp>
#include <coldchain/graph/dependents.hpp>
#include <coldchain/graph/forest.hpp>

namespace coldchain::graph {

Result<Dependents> find_dependents(const io::FileSource& files, const io::OpenPolicy& policy,
                                   const DependentsRequest& request, unsigned workers) {
  io::OpenPolicy looking = policy;
  looking.test_locks = false;  // those in use depend on it, too
  Forest forest = TRY(
      scan(files, looking, request.directories, workers, [](const std::string&, const Node&) {}));
  std::vector<std::size_t> open;
  std::set<std::size_t> seen;
  for (std::size_t i = 0; i < forest.images.size(); ++i) {
    if (forest.images[i].status.identity == request.image)
      open.push_back(i);
  }
  Dependents found;
  while (!open.empty()) {
    const ForestImage& image = forest.images[open.back()];
    open.pop_back();
    for (const auto* users : {&image.overlays, &image.data_file_of}) {
      for (const std::size_t user : *users) {
        const io::FileIdentity identity = forest.images[user].status.identity;
        if (identity == request.top || !seen.insert(user).second)
          continue;
        const bool is_known =
            identity == request.image ||
            std::find(request.known.begin(), request.known.end(), identity) != request.known.end();
        if (!is_known)
          found.paths.push_back(forest.images[user].path);
        open.push_back(user);
      }
    }
  }
  std::sort(found.paths.begin(), found.paths.end());
  found.unreadable = std::move(forest.unreadable);
  return found;
}

}  // namespace coldchain::graph
