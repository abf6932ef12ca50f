// SPDX-License-Identifier: MIT
// A chain of opened images as the guest sees it through its top: layers with their mappings, and
// guest reads. Index 0 is the top. Making a Chain fails if guest data cannot be read, so its
// answers are never invented.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::graph {

struct ChainOptions {
  std::optional<std::string> snapshot{};  // ID or name of an internal snapshot of the top layer
  std::optional<std::size_t> layer{};     // this layer of the tree alone, as if it had no backing
  // The layer of the chain that will be written to.
  std::optional<std::size_t> written{};
  // Data that cannot be read is taken as zeros. Only the user can decide that.
  bool unreadable_are_zeros = false;
  // The most bytes that the L1 tables of all layers may take in memory.
  std::uint64_t max_l1_bytes = 512ULL << 20;
};

struct Layer {
  const Node* node = nullptr;
  std::size_t index = 0;                  // in the tree, where a single layer was asked for
  std::optional<qcow2::Mapping> mapping;  // none for a raw image
  std::uint64_t guest_size = 0;
  // The layer will be written to. The storage of its file changes during that, so it must not
  // influence the result.
  bool is_written = false;

  [[nodiscard]] const qcow2::Image& qcow2() const { return *node->qcow2_image(); }
  [[nodiscard]] const raw::Image& raw() const { return *node->raw_image(); }
  // Where the guest's bytes lie.
  [[nodiscard]] const io::File& data_file() const {
    return mapping ? *qcow2().data_file() : raw().file();
  }
};

class Chain {
 public:
  // `top` outlives the chain.
  [[nodiscard]] static Result<Chain> make(const Node& top, const ChainOptions& options = {});

  // The chain that an internal snapshot of layer `index` reads through. The two chains share the
  // L1 tables of the layers below, so that many snapshots of a long chain cost little.
  [[nodiscard]] Result<Chain> through(std::size_t index, const qcow2::Snapshot& snapshot) const;

  [[nodiscard]] const std::vector<Layer>& layers() const { return layers_; }
  [[nodiscard]] std::uint64_t guest_size() const { return layers_.front().guest_size; }
  // A single layer was asked for, and it has a backing file: the layers below decide what the guest
  // reads where it has nothing.
  [[nodiscard]] bool hides_layers() const { return hides_layers_; }
  [[nodiscard]] bool unreadable_are_zeros() const { return unreadable_are_zeros_; }

  // Reads guest bytes through the whole chain. Bytes that no layer has, and bytes past the end of a
  // shorter backing file, read as zeros. Fails past the end of the guest's disk, and for data that
  // cannot be read, unless the chain takes it as zeros.
  [[nodiscard]] Result<void> read(GuestOffset offset, ByteSpan buffer) const;

 private:
  std::vector<Layer> layers_;
  bool hides_layers_ = false;
  bool unreadable_are_zeros_ = false;
};

// Reads guest bytes through a chain in small steps. A compressed cluster that several consecutive
// reads need is unpacked once.
class Reader {
 public:
  // `chain` outlives the reader.
  explicit Reader(const Chain& chain) : chain_(&chain) {}

  // As Chain::read().
  [[nodiscard]] Result<void> read(GuestOffset offset, ByteSpan buffer);

 private:
  const Chain* chain_;
  qcow2::Mapping::Cursor cursor_;
  qcow2::Image::Unpacked unpacked_;
};

}  // namespace coldchain::graph
