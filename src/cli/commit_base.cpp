// SPDX-License-Identifier: MIT
#include "commit_base.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/commit.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

Result<std::size_t> find_commit_base(const io::FileSource& files, const CommitRequest& request,
                                     const NodeChain& nodes) {
  if (!request.base && !request.argument)
    return std::size_t{1};
  const io::Location top = TRY(locate(*nodes.front()));
  std::optional<io::FileIdentity> from_image;
  std::optional<io::FileIdentity> from_here;
  if (request.base && !request.base->empty()) {
    const bool is_absolute = request.base->starts_with('/');
    if (const auto file = is_absolute ? files.open(*request.base)
                                      : files.open_operand(top.folder + "/" + *request.base))
      from_image = (*file)->status().identity;
    if (const auto file = files.open_operand(*request.base))
      from_here = (*file)->status().identity;
  }
  const auto find = [&](const auto& is_it) -> std::size_t {
    for (std::size_t i = 1; i < nodes.size(); ++i) {
      if (is_it(*nodes[i]))
        return i;
    }
    return 0;
  };
  const auto is_file = [](const graph::Node& node, const std::optional<io::FileIdentity>& file) {
    return file && node.file && node.file->status().identity == *file;
  };
  std::size_t found = 0;
  if (request.argument)
    found = find([&](const graph::Node& node) {
      return node.file && ops::commit_argument(node) == *request.argument;
    });
  if (found == 0 && request.base)
    found = find([&](const graph::Node& node) { return node.name == *request.base; });
  if (found == 0)
    found = find([&](const graph::Node& node) { return is_file(node, from_image); });
  if (found == 0)
    found = find([&](const graph::Node& node) { return is_file(node, from_here); });
  if (found == 0 && request.argument)
    return fail(
        ErrorCode::not_found,
        fmt::format(
            "the base of the pending commit is no longer in the backing chain of '{0}'{1}. Put it "
            "back; if it is lost, {0} still has all its data, and '{2}' ends the commit",
            to_terminal(request.image),
            nodes.back()->is_open()
                ? ""
                : fmt::format(": '{}' is missing", to_terminal(nodes.back()->filename)),
            TRY(edit::SideFiles::of(*nodes.front()->file, request.folders)).set_aside_command()));
  if (found == 0)
    return fail(ErrorCode::not_found,
                fmt::format("Did not find '{}' in the backing chain of '{}'",
                            to_terminal(request.base.value_or("")), to_terminal(request.image)));
  return found;
}

}  // namespace coldchain::cli
