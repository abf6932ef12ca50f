// SPDX-License-Identifier: MIT
#include "readers.hpp"

#include "chain_change.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/graph/dependents.hpp>
#include <coldchain/graph/open.hpp>

namespace coldchain::cli {

Result<std::vector<std::string>> find_readers(const io::FileSource& files,
                                              const io::OpenPolicy& policy,
                                              const std::vector<std::string>& directories,
                                              const io::FileIdentity& image, const World& world) {
  graph::DependentsRequest wanted;
  wanted.directories = directories;
  wanted.image = image;
  return TRY(graph::find_dependents(files, policy, wanted, world.workers())).paths();
}

bool reads_alike(const io::FileSource& files, const io::OpenPolicy& policy, const std::string& path,
                 std::span<const graph::Node* const> nodes) {
  const auto image = graph::open(files, policy, {.name = path, .is_path = true, .format = "qcow2"});
  if (!image)
    return false;
  const NodeChain chain = graph::chain_of(**image);
  const auto at = std::find_if(chain.begin(), chain.end(), [&](const graph::Node* node) {
    return node->file != nullptr &&
           node->file->status().identity == nodes.front()->file->status().identity;
  });
  return is_same_chain(std::span(at, chain.end()), nodes);
}

}  // namespace coldchain::cli
