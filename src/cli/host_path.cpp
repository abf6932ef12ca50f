// SPDX-License-Identifier: MIT
#include "host_path.hpp"

#include <filesystem>

#include <coldchain/base/text.hpp>
#include <coldchain/graph/name.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

std::string host_path(const graph::Node& node) {
  if (node.file == nullptr)
    return node.filename;
  const Result<io::Location> location = node.file->location();
  return location ? location->folder + "/" + location->name : node.filename;
}

void note_confines(edit::SideFolders& folders, const io::OpenPolicy& policy) {
  folders.options.clear();
  folders.access_time_guard = policy.access_time_guard;
  const bool is_sysroot = policy.root.empty();
  const std::string& given = is_sysroot ? policy.sysroot : policy.root;
  if (given.empty())
    return;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(given, error);
  folders.options = fmt::format("{} {}", is_sysroot ? "--sysroot" : "--root",
                                to_shell_word(error ? given : absolute.string()));
}

std::string operand_of(const graph::Node& node, const edit::SideFolders& folders) {
  const auto side_files =
      node.file ? edit::SideFiles::of(*node.file, folders) : fail(ErrorCode::not_found, "");
  if (side_files)
    return side_files->operand();
  const std::string path = word_for_path(host_path(node));
  return folders.options.empty() ? path : fmt::format("{} {}", folders.options, path);
}

std::string word_for_path(const std::string& path) {
  const bool may_be_misread = path.starts_with('-') || graph::has_protocol(path);
  return to_shell_word(may_be_misread ? "./" + path : path);
}

}  // namespace coldchain::cli
