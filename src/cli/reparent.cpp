// SPDX-License-Identifier: MIT
#include "reparent.hpp"

#include "backing_name.hpp"
#include "readers.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/reparent.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

bool is_overlay_of(const NodeChain& chain, const graph::Node& image) {
  return chain.size() > 1 && chain[1]->file != nullptr &&
         chain[1]->file->status().identity == image.file->status().identity;
}

}  // namespace

Error Reparenting::Overlay::about(Error error) const {
  return with_context(std::move(error), to_terminal(path));
}

Result<void> Reparenting::plan(const io::FileSource& files, const CommonOptions& options,
                               std::size_t base, unsigned workers, Overlay& overlay) {
  const ops::BackingLink link =
      TRY(link_to_layer(files, options, graph::chain_of(*overlay.image), base));
  const graph::Chain chain = TRY(graph::Chain::make(*overlay.image));
  overlay.transaction = std::make_unique<edit::Transaction>(*overlay.image->file);
  overlay.planned = TRY(ops::plan_reparenting(*overlay.transaction, chain, base, link, workers));
  return {};
}

Result<void> Reparenting::find(const io::FileSource& files, const CommonOptions& options,
                               const std::vector<std::string>& directories, const NodeChain& nodes,
                               std::size_t base, const World& world) {
  for (const std::string& path : TRY(find_readers(files, policy_for_links(options), directories,
                                                  nodes.front()->file->status().identity, world))) {
    Overlay overlay{path, TRY(graph::open(files, policy_for_links(options),
                                          {.name = path, .is_path = true, .format = "qcow2"}))};
    const NodeChain chain = graph::chain_of(*overlay.image);
    // Others read through an overlay, and go on to do so.
    if (!is_overlay_of(chain, *nodes.front()))
      continue;
    if (!is_same_chain(std::span(chain).subspan(1), nodes))
      return fail(overlay.about(
          {ErrorCode::refused,
           fmt::format("reads '{}' with another format or another chain than the commit",
                       to_terminal(nodes.front()->filename)),
           0}));
    if (const Result<void> planned = plan(files, options, base + 1, world.workers(), overlay);
        !planned)
      return fail(overlay.about(planned.error()));
    // The files below it are held by the commit.
    overlay.image->children.clear();
    overlays_.push_back(std::move(overlay));
  }
  return {};
}

Result<void> Reparenting::check_agreed(bool agrees) const {
  if (overlays_.empty() || agrees)
    return {};
  std::vector<std::string> paths;
  for (const Overlay& overlay : overlays_)
    paths.push_back(overlay.path);
  return fail(ErrorCode::refused,
              fmt::format("--reparent would write to {}; nothing was written. Look at 'coldchain "
                          "plan commit --reparent', then give --yes",
                          to_terminal(fmt::format("{}", fmt::join(paths, ", ")))));
}

Result<void> Reparenting::lock(const io::FileSource& files, const edit::SideFolders& folders) {
  for (Overlay& overlay : overlays_) {
    overlay.target = TRY(open_for_change(*overlay.image->file, overlay.path, folders));
    if (const auto free =
            edit::check_nothing_pending(*overlay.target->image, overlay.target->side_files);
        !free)
      return fail(overlay.about(free.error()));
    TRY(check_unchanged(files, {overlay.image.get()}));
  }
  return {};
}

Result<void> Reparenting::carry_out() {
  for (Overlay& overlay : overlays_) {
    if (const auto done = edit::commit(*overlay.transaction, *overlay.target->image,
                                       overlay.target->side_files, overlay.planned.change);
        !done)
      return fail(overlay.about(with_context(
          done.error(), "the base has all data, and the same command continues; but")));
  }
  return {};
}

NodeChain Reparenting::images() const {
  NodeChain images;
  for (const Overlay& overlay : overlays_)
    images.push_back(overlay.image.get());
  return images;
}

std::vector<report::Reparented> Reparenting::told() const {
  std::vector<report::Reparented> images;
  for (const Overlay& overlay : overlays_)
    images.push_back(
        {overlay.path, overlay.transaction->changed_bytes(), overlay.planned.bitmaps_dirty});
  return images;
}

Result<void> end_reparentings(const io::FileSource& files, const CommonOptions& options,
                              const std::vector<std::string>& directories, const graph::Node& base,
                              const edit::SideFolders& folders, World& world) {
  for (const std::string& path : TRY(find_readers(files, policy_for_links(options), directories,
                                                  base.file->status().identity, world))) {
    const auto file = TRY(files.open_operand(path));
    const auto side_files = TRY(edit::SideFiles::of(*file, folders));
    const edit::PendingFile pending = TRY(edit::look_at_pending(*file, side_files));
    // What is not believed is none of ours, and stays.
    if (pending.error)
      world.complain(with_context(*pending.error, "not finished"));
    const bool is_ours = pending.kind == edit::PendingKind::unfinished ||
                         (pending.kind == edit::PendingKind::believed &&
                          pending.head->facts.change.operation == edit::Operation::reparent);
    if (!is_ours)
      continue;
    ChangeTarget target = TRY(open_for_change(*file, path, folders));
    if (const auto ended = edit::resume(*target.image, target.side_files, false, examine); !ended)
      return fail(with_context(ended.error(), to_terminal(path)));
  }
  return {};
}

}  // namespace coldchain::cli
