// SPDX-License-Identifier: MIT
#include "reparent.hpp"

#include "backing_name.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/dependents.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/reparent.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

Error about(const Overlay& overlay, Error error) {
  return with_context(std::move(error), to_terminal(overlay.path));
}

Result<void> plan(const io::FileSource& files, const CommonOptions& options, std::size_t base,
                  unsigned workers, Overlay& overlay) {
  const ops::BackingLink link =
      TRY(link_to_layer(files, options, graph::chain_of(*overlay.image), base));
  const graph::Chain chain = TRY(graph::Chain::make(*overlay.image));
  overlay.transaction = std::make_unique<edit::Transaction>(*overlay.image->file);
  overlay.change = TRY(ops::plan_reparenting(*overlay.transaction, chain, base, link, workers));
  return {};
}

}  // namespace

Result<std::vector<Overlay>> find_overlays(const io::FileSource& files,
                                           const CommonOptions& options,
                                           const std::vector<std::string>& directories,
                                           const NodeChain& nodes, std::size_t base,
                                           const World& world) {
  const io::OpenPolicy policy = policy_for_links(options);
  graph::DependentsRequest wanted;
  wanted.directories = directories;
  wanted.image = nodes.front()->file->status().identity;
  const graph::Dependents found =
      TRY(graph::find_dependents(files, policy, wanted, world.workers()));
  std::vector<Overlay> overlays;
  for (const std::string& path : found.paths) {
    Overlay overlay{path, TRY(graph::open(files, policy, {.name = path, .format = "qcow2"}))};
    const NodeChain chain = graph::chain_of(*overlay.image);
    // Others read through an overlay, and go on to do so.
    if (!is_same_chain(std::span(chain).subspan(1), nodes))
      continue;
    if (const Result<void> planned = plan(files, options, base + 1, world.workers(), overlay);
        !planned)
      return fail(about(overlay, planned.error()));
    overlays.push_back(std::move(overlay));
  }
  return overlays;
}

Result<std::vector<ChangeTarget>> lock_overlays(const io::FileSource& files,
                                                const std::vector<Overlay>& overlays,
                                                const edit::SideFolders& folders) {
  std::vector<ChangeTarget> targets;
  for (const Overlay& overlay : overlays) {
    targets.push_back(TRY(open_for_change(files, overlay.path, folders)));
    if (TRY(targets.back().side_files.has_pending()))
      return fail(about(overlay, {ErrorCode::refused,
                                  fmt::format("another change is pending: 'coldchain resume {}' "
                                              "first",
                                              to_shell_word(overlay.path)),
                                  0}));
    TRY(check_unchanged(files, {overlay.image.get()}));
  }
  return targets;
}

Result<void> reparent(const std::vector<Overlay>& overlays, std::vector<ChangeTarget>& targets) {
  for (std::size_t i = 0; i < overlays.size(); ++i) {
    const Overlay& overlay = overlays[i];
    if (const auto done = edit::commit(*overlay.transaction, targets[i].image,
                                       targets[i].side_files, overlay.change);
        !done)
      return fail(about(overlay, done.error()));
  }
  return {};
}

}  // namespace coldchain::cli
