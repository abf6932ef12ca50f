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

// All images in these folders that read through `image`.
Result<std::vector<std::string>> users_of(const io::FileSource& files, const CommonOptions& options,
                                          const std::vector<std::string>& directories,
                                          const graph::Node& image, const World& world) {
  graph::DependentsRequest wanted;
  wanted.directories = directories;
  wanted.image = image.file->status().identity;
  return TRY(graph::find_dependents(files, policy_for_links(options), wanted, world.workers()))
      .paths;
}

bool is_overlay_of(const NodeChain& chain, const graph::Node& image) {
  return chain.size() > 1 && chain[1]->file != nullptr &&
         chain[1]->file->status().identity == image.file->status().identity;
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

Result<std::vector<std::string>> find_strange_overlays(const io::FileSource& files,
                                                       const CommonOptions& options,
                                                       const std::vector<std::string>& directories,
                                                       const NodeChain& nodes, const World& world) {
  std::vector<std::string> strange;
  for (const std::string& path :
       TRY(users_of(files, options, directories, *nodes.front(), world))) {
    const auto image =
        TRY(graph::open(files, policy_for_links(options), {.name = path, .format = "qcow2"}));
    const NodeChain chain = graph::chain_of(*image);
    if (is_overlay_of(chain, *nodes.front()) && !is_same_chain(std::span(chain).subspan(1), nodes))
      strange.push_back(path);
  }
  return strange;
}

Result<std::vector<Overlay>> find_overlays(const io::FileSource& files,
                                           const CommonOptions& options,
                                           const std::vector<std::string>& directories,
                                           const NodeChain& nodes, std::size_t base,
                                           const World& world) {
  std::vector<Overlay> overlays;
  for (const std::string& path :
       TRY(users_of(files, options, directories, *nodes.front(), world))) {
    Overlay overlay{path, TRY(graph::open(files, policy_for_links(options),
                                          {.name = path, .format = "qcow2"}))};
    const NodeChain chain = graph::chain_of(*overlay.image);
    // Others read through an overlay, and go on to do so.
    if (!is_overlay_of(chain, *nodes.front()))
      continue;
    if (!is_same_chain(std::span(chain).subspan(1), nodes))
      return fail(about(overlay, {ErrorCode::refused,
                                  fmt::format("does not read '{}' as what is committed, but by "
                                              "another format or another chain",
                                              to_terminal(nodes.front()->filename)),
                                  0}));
    if (const Result<void> planned = plan(files, options, base + 1, world.workers(), overlay);
        !planned)
      return fail(about(overlay, planned.error()));
    // The files below it are held by the commit.
    overlay.image->children.clear();
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

Result<void> end_reparentings(const io::FileSource& files, const CommonOptions& options,
                              const std::vector<std::string>& directories, const graph::Node& base,
                              const edit::SideFolders& folders, const World& world) {
  for (const std::string& path : TRY(users_of(files, options, directories, base, world))) {
    const auto file = TRY(files.open(path));
    const io::Location location = TRY(files.locate(path));
    const auto side_files = TRY(edit::SideFiles::of(file->status(), location, folders));
    if (!TRY(side_files.has_pending()))
      continue;
    // Nothing, where it was never finished.
    const auto pending = TRY(edit::read_pending(*file, side_files));
    if (pending && pending->facts.change.operation != edit::Operation::reparent)
      continue;
    ChangeTarget target = TRY(open_for_change(files, path, folders));
    if (const auto ended = edit::resume(target.image, target.side_files, false, examine); !ended)
      return fail(with_context(ended.error(), to_terminal(path)));
  }
  return {};
}

Result<void> reparent(const std::vector<Overlay>& overlays, std::vector<ChangeTarget>& targets) {
  for (std::size_t i = 0; i < overlays.size(); ++i) {
    const Overlay& overlay = overlays[i];
    if (const auto done = edit::commit(*overlay.transaction, targets[i].image,
                                       targets[i].side_files, overlay.change);
        !done)
      return fail(about(overlay, with_context(done.error(),
                                              "the base has everything, and the same command goes "
                                              "on; but")));
  }
  return {};
}

}  // namespace coldchain::cli
