// SPDX-License-Identifier: MIT
#include "commit_dependents.hpp"

#include "readers.hpp"

#include <span>

#include <coldchain/base/try.hpp>
#include <coldchain/graph/dependents.hpp>

namespace coldchain::cli {

namespace {

bool grows(const ops::Commit& commit) {
  return commit.disk_size_after != commit.disk_size_before;
}

// None, where its file stays as it is.
Result<std::vector<std::string>> find_readers_of_base(const io::FileSource& files,
                                                      const io::OpenPolicy& policy,
                                                      const std::vector<std::string>& directories,
                                                      const PlannedCommit& planned, World& world) {
  std::vector<std::string> none;
  if (!planned.changes_metadata && planned.commit.changed.empty() && !grows(planned.commit))
    return none;
  graph::DependentsRequest wanted;
  wanted.directories = directories;
  wanted.image = planned.nodes[planned.base]->file->status().identity;
  wanted.top = planned.nodes.front()->file->status().identity;
  for (std::size_t i = 1; i < planned.base; ++i)
    wanted.known.push_back(planned.nodes[i]->file->status().identity);
  graph::Dependents found = TRY(graph::find_dependents(files, policy, wanted, world.workers()));
  for (const auto* errors : {&found.unreadable, &found.unfollowed}) {
    for (const Error& error : *errors)
      world.complain(with_context(error, "not checked whether it reads through the base"));
  }
  return found.paths();
}

// Not after a commit that left the top as it was, whose overlays may read the base by now.
bool changes_for_guests(const PlannedCommit& planned, unsigned workers) {
  if (grows(planned.commit))
    return true;
  return !planned.commit.changed.empty() &&
         !ops::check_committed(planned.chain, planned.base, planned.base_chain, workers);
}

}  // namespace

Result<std::vector<std::string>> find_commit_dependents(const io::FileSource& files,
                                                        const CommonOptions& options,
                                                        const std::vector<std::string>& directories,
                                                        const PlannedCommit& planned,
                                                        World& world) {
  const io::OpenPolicy policy = policy_for_links(options);
  const auto erase_alike = [&](std::vector<std::string>& readers, std::size_t image) {
    const auto nodes = std::span(planned.nodes).subspan(image);
    std::erase_if(readers,
                  [&](const std::string& path) { return reads_alike(files, policy, path, nodes); });
  };
  std::vector<std::string> dependents;
  if (planned.empties) {
    dependents = TRY(find_readers(files, policy, directories,
                                  planned.nodes.front()->file->status().identity, world));
    // They see through the top what the base has by then.
    erase_alike(dependents, 0);
  }
  std::vector<std::string> readers =
      TRY(find_readers_of_base(files, policy, directories, planned, world));
  TRY(check_evidence(options));
  if (!readers.empty() && !changes_for_guests(planned, world.workers()))
    erase_alike(readers, planned.base);
  dependents.insert(dependents.end(), readers.begin(), readers.end());
  return dependents;
}

}  // namespace coldchain::cli
