// SPDX-License-Identifier: MIT
// Opens the tree of nodes of a name. The top must open. Everything below may fail; it is then a
// node that was not opened, with findings that give the reason. Files come from a FileSource.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

// The most layers in one chain.
constexpr std::size_t max_layers = 1024;

enum class ProbeRule {
  qemu,     // a top image without a given format is what its first bytes say
  libvirt,  // the same, but a probed image that names a backing file is taken as raw
};

// How to open a top that is not sound or has an unsupported format.
enum class OpenFor {
  reading,
  checking,   // a qcow2 image may be damaged where a check says more
  admission,  // the same, and one of a format that is not read is a node that was not opened
};

struct OpenRequest {
  std::string name;
  bool is_path = false;  // the name is of a file that was found: an operand, which is not parsed
  std::optional<std::string> format;  // -f
  bool is_image_opts = false;
  ProbeRule probe_rule = ProbeRule::qemu;
  bool follow_links = true;  // false: the top alone, its links unmentioned
  OpenFor purpose = OpenFor::reading;
};

[[nodiscard]] Result<std::unique_ptr<Node>> open(const io::FileSource& files,
                                                 const io::OpenPolicy& policy,
                                                 const OpenRequest& request);

// The same of a name that is read already. `request.name` is its text; what it says of the format
// stands above the spec.
[[nodiscard]] Result<std::unique_ptr<Node>> open_spec(const io::FileSource& files,
                                                      const io::OpenPolicy& policy, NameSpec spec,
                                                      const OpenRequest& request);

// The image at the top of a chain, in a file that is open already as `path`, and all that its
// header leads to. Its locks are not tested.
[[nodiscard]] Result<std::unique_ptr<Node>> open_chain_of(const io::FileSource& files,
                                                          const io::OpenPolicy& policy,
                                                          std::unique_ptr<io::File> file,
                                                          const std::string& path);

// The image in a file that is open already. Its links are not looked at, its locks not tested.
[[nodiscard]] Result<std::unique_ptr<Node>> open_file(std::unique_ptr<io::File> file,
                                                      const std::string& path,
                                                      const std::string& format);

}  // namespace coldchain::graph
