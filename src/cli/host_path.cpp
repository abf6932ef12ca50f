// SPDX-License-Identifier: MIT
#include "host_path.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/graph/name.hpp>

namespace coldchain::cli {

std::string host_path(const graph::Node& node) {
  if (node.file == nullptr)
    return node.filename;
  const Result<io::Location> location = node.file->location();
  return location ? location->folder + "/" + location->name : node.filename;
}

std::string word_for_path(const std::string& path) {
  const bool may_be_misread = path.starts_with('-') || graph::has_protocol(path);
  return to_shell_word(may_be_misread ? "./" + path : path);
}

}  // namespace coldchain::cli
