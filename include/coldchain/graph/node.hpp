// SPDX-License-Identifier: MIT
// One image of a backing tree, with what was found wrong with it and with the link that led to it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <coldchain/finding/finding.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/image.hpp>
#include <coldchain/raw/image.hpp>

namespace coldchain::graph {

struct Node {
  std::string name;      // as it was given or recorded
  std::string filename;  // the path that was opened; `name` where nothing could be
  std::string format;    // "qcow2", "raw", …; empty if unknown
  bool format_probed = false;
  std::string probed_format;  // what QEMU's probe says; empty where no file was opened

  std::unique_ptr<io::File> file;  // null where the node could not be opened
  // Of a qcow2 image in a part of a file: `file` is that part, and host offsets count from its
  // begin.
  std::optional<io::Window> window;
  std::string data_filename;  // of an external data file
  std::unique_ptr<io::File> data_file;

  // Nothing where the node was not opened.
  std::variant<std::monostate, raw::Image, qcow2::Image> image;

  std::vector<std::unique_ptr<Node>> children;  // the backing file, if any
  finding::Findings findings;

  // The reason why guest data cannot be read through this node although the image itself was opened
  // or described: a broken link, or a link that was not followed. Always set if the node was not
  // opened.
  std::optional<Error> gap;

  [[nodiscard]] const qcow2::Image* qcow2_image() const {
    return std::get_if<qcow2::Image>(&image);
  }
  [[nodiscard]] const raw::Image* raw_image() const { return std::get_if<raw::Image>(&image); }
  [[nodiscard]] bool is_open() const { return image.index() != 0; }
  [[nodiscard]] const Node* backing() const {
    return children.empty() ? nullptr : children.front().get();
  }
  // What the guest sees, in bytes; 0 where the node was not opened.
  [[nodiscard]] std::uint64_t guest_size() const {
    if (const auto* qcow2 = qcow2_image())
      return qcow2->guest_size();
    return raw_image() != nullptr ? raw_image()->guest_size() : 0;
  }
};

// The node and all that it reaches through its first children, top first.
[[nodiscard]] std::vector<const Node*> chain_of(const Node& top);

}  // namespace coldchain::graph
