// SPDX-License-Identifier: MIT
#include "backing_name.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/transaction.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/io/overlay_file.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

// Without symbolic links; under a sysroot its path inside.
Result<std::string> own_name(const io::FileSource& files, const graph::Node& node) {
  const io::Location location = TRY(locate(node));
  return files.name_of(location.folder + "/" + location.name);
}

// The image is opened with that link, by the name that was given and by its own.
Result<void> try_out(const io::FileSource& files, const CommonOptions& options,
                     std::span<const graph::Node* const> nodes, std::size_t base,
                     const ops::BackingLink& link) {
  const graph::Node& image = *nodes.front();
  edit::Transaction transaction(*image.file);
  TRY(ops::stage_backing_link(transaction, image.qcow2_image()->header(), link));
  const std::string own = TRY(own_name(files, image));
  for (const std::string& path : {image.filename, own}) {
    const auto linked =
        graph::open_chain_of(files, policy_for_links(options),
                             std::make_unique<io::OverlayFile>(transaction.view()), path);
    if (!linked)
      return fail(with_context(linked.error(), to_terminal(path)));
    const NodeChain found = graph::chain_of(**linked);
    if (!is_same_chain(std::span(found).subspan(1), nodes.subspan(base)))
      return fail(ErrorCode::refused,
                  fmt::format("nothing was changed: from '{}' the name '{}' does not resolve to "
                              "'{}' with the same chain below it",
                              to_terminal(path), to_terminal(link.name),
                              to_terminal(nodes[base]->filename)));
  }
  return {};
}

}  // namespace

Result<ops::BackingLink> link_to_layer(const io::FileSource& files, const CommonOptions& options,
                                       std::span<const graph::Node* const> nodes,
                                       std::size_t base) {
  if (base >= nodes.size() || !nodes[base]->is_open())
    return fail(ErrorCode::refused, "the chain is shorter than it was, or broken");
  const graph::Node& node = *nodes[base];
  const ops::BackingLink recorded{node.name, node.format};
  if (try_out(files, options, nodes, base, recorded))
    return recorded;
  const ops::BackingLink own{TRY(own_name(files, node)), node.format};
  TRY(try_out(files, options, nodes, base, own));
  return own;
}

}  // namespace coldchain::cli
