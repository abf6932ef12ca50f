// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cassert>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/chain.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

Error in_file(Error error, const Node& node) {
  return with_context(std::move(error), to_terminal(node.filename));
}

Result<qcow2::Mapping> open_mapping(const qcow2::Image& image, const ChainOptions& options) {
  const std::optional<std::string>& snapshot = options.snapshot;
  if (!snapshot)
    return image.active_mapping();
  const std::vector<qcow2::Snapshot> snapshots =
      TRY(qcow2::read_snapshots(image.file(), image.header()));
  const qcow2::Snapshot* found = qcow2::find_snapshot(snapshots, *snapshot);
  if (found == nullptr)
    return fail(ErrorCode::not_found,
                fmt::format("there is no internal snapshot '{}'; 'coldchain info' lists them",
                            to_terminal(*snapshot)));
  return image.snapshot_mapping(*found);
}

Result<Layer> open_layer(const Node& node, std::size_t index, const ChainOptions& options) {
  Layer layer;
  layer.node = &node;
  layer.index = index;
  layer.guest_size = node.guest_size();
  if (const qcow2::Image* image = node.qcow2_image()) {
    Result<qcow2::Mapping> mapping = open_mapping(*image, options);
    if (!mapping)
      return fail(in_file(mapping.error(), node));
    layer.guest_size = mapping->guest_size();
    layer.mapping.emplace(std::move(*mapping));
  } else if (options.snapshot) {
    return fail(
        in_file({ErrorCode::invalid_argument, "a raw image has no internal snapshots", 0}, node));
  }
  return layer;
}

}  // namespace

Result<Chain> Chain::make(const Node& top, const ChainOptions& options) {
  std::vector<const Node*> nodes = chain_of(top);
  std::size_t first = 0;
  if (options.layer) {
    if (*options.layer >= nodes.size())
      return fail(ErrorCode::invalid_argument,
                  fmt::format("there is no layer {}; the chain has {}, counted from 0 at the top",
                              *options.layer, nodes.size()));
    first = *options.layer;
    nodes = {nodes[first]};
  }
  const qcow2::Image* only = options.layer ? nodes.front()->qcow2_image() : nullptr;
  Chain chain;
  chain.hides_layers_ = only != nullptr && only->header().backing_file().has_value();
  chain.unreadable_are_zeros_ = options.unreadable_are_zeros;
  std::uint64_t l1_bytes = 0;
  for (const Node* node : nodes) {
    const bool alone = options.layer.has_value();
    if (node->gap && (!alone || !node->is_open()))
      return fail(*node->gap);
    assert(node->is_open());
    const bool is_top = node == nodes.front();
    chain.layers_.push_back(
        TRY(open_layer(*node, first + chain.layers_.size(), is_top ? options : ChainOptions{})));
    chain.layers_.back().is_written = options.written == chain.layers_.size() - 1;
    if (const auto& mapping = chain.layers_.back().mapping)
      l1_bytes += mapping->l1().size() * sizeof(be64);
    if (l1_bytes > options.max_l1_bytes)
      return fail(
          in_file({ErrorCode::too_large,
                   fmt::format("the L1 tables down to this layer need {} bytes of memory (at "
                               "most {})",
                               l1_bytes, options.max_l1_bytes),
                   0},
                  *node));
  }
  return chain;
}

Result<Chain> Chain::through(std::size_t index, const qcow2::Snapshot& snapshot) const {
  Chain chain;
  chain.unreadable_are_zeros_ = unreadable_are_zeros_;
  chain.layers_.assign(layers_.begin() + static_cast<std::ptrdiff_t>(index), layers_.end());
  Layer& top = chain.layers_.front();
  Result<qcow2::Mapping> mapping = top.qcow2().snapshot_mapping(snapshot);
  if (!mapping)
    return fail(in_file(mapping.error(), *top.node));
  top.guest_size = mapping->guest_size();
  top.mapping.emplace(std::move(*mapping));
  return chain;
}

Result<void> Chain::read(GuestOffset offset, ByteSpan buffer) const {
  return Reader(*this).read(offset, buffer);
}

Result<void> Reader::read(GuestOffset offset, ByteSpan buffer) {
  const std::uint64_t guest_size = chain_->guest_size();
  if (offset.value > guest_size || buffer.size() > guest_size - offset.value)
    return fail(ErrorCode::invalid_argument,
                fmt::format("guest range {:#x}+{:#x} reaches past the end of the disk ({:#x})",
                            offset.value, buffer.size(), guest_size));
  const std::vector<Layer>& layers = chain_->layers();
  while (!buffer.empty()) {
    // Go down until a layer answers for the byte at `offset`; `length` shrinks to what it answers.
    std::uint64_t length = buffer.size();
    for (std::size_t i = 0;; ++i) {
      const bool below_all = i == layers.size() || offset.value >= layers[i].guest_size;
      if (below_all) {
        const ByteSpan part = buffer.first(length);
        std::fill(part.begin(), part.end(), std::byte{0});
        break;
      }
      const Layer& layer = layers[i];
      length = std::min(length, layer.guest_size - offset.value);
      if (!layer.mapping) {
        if (Result<void> done = layer.raw().read(offset, buffer.first(length)); !done)
          return fail(in_file(done.error(), *layer.node));
        break;
      }
      const Result<qcow2::Location> location = layer.mapping->locate(offset, cursor_);
      if (!location && !chain_->unreadable_are_zeros())
        return fail(in_file(location.error(), *layer.node));
      const qcow2::Geometry& geometry = layer.mapping->geometry();
      length =
          std::min(length, location ? location->length
                                    : geometry.cluster_size() - geometry.in_cluster(offset.value));
      if (!location || (qcow2::is_lost(location->unreadable) && chain_->unreadable_are_zeros())) {
        const ByteSpan part = buffer.first(length);
        std::fill(part.begin(), part.end(), std::byte{0});
        break;
      }
      if (!qcow2::is_allocated(location->kind))
        continue;
      const ByteSpan part = buffer.first(length);
      if (location->kind == qcow2::RunKind::data || location->kind == qcow2::RunKind::compressed) {
        Result<void> done = layer.qcow2().check_readable();
        if (done)
          done = layer.qcow2().read(*location, offset, part, unpacked_);
        const bool is_cut = location->unreadable == qcow2::Unreadable::undecided;
        if (!done && is_cut && chain_->unreadable_are_zeros())
          std::fill(part.begin(), part.end(), std::byte{0});
        else if (!done)
          return fail(in_file(done.error(), *layer.node));
      } else {
        std::fill(part.begin(), part.end(), std::byte{0});
      }
      break;
    }
    offset = offset + length;
    buffer = buffer.subspan(length);
  }
  return {};
}

}  // namespace coldchain::graph
