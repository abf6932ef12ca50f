// SPDX-License-Identifier: MIT
#include "chain_change.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/lock.hpp>
#include <coldchain/io/overlay_file.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

bool is_same_file(const io::File* one, const io::File* other) {
  return one == nullptr || other == nullptr ? one == other
                                            : one->status().identity == other->status().identity;
}

bool is_same(const graph::Node& a, const graph::Node& b) {
  if (!a.is_open() || !b.is_open() || a.format != b.format)
    return false;
  if (const raw::Image* raw = a.raw_image())
    return raw->is_same(*b.raw_image());
  return is_same_file(a.file.get(), b.file.get()) &&
         is_same_file(a.data_file.get(), b.data_file.get());
}

template <class Lock>
Result<void> with_locks_of(const NodeChain& nodes, const Lock& lock) {
  for (const graph::Node* node : nodes) {
    for (const io::File* file : {node->file.get(), node->data_file.get()}) {
      const Result<void> done = file != nullptr ? lock(*file) : Result<void>{};
      if (!done)
        return fail(with_context(
            done.error(),
            (done.error().code == ErrorCode::locked ? "Another process uses " : "Could not lock ") +
                fmt::format("'{}'", to_terminal(node->filename))));
    }
  }
  return {};
}

Result<void> check_file(const io::FileSource& files, const std::string& filename,
                        const io::File& opened) {
  if (!is_unchanged(*TRY(files.open(filename)), opened))
    return fail(ErrorCode::refused,
                fmt::format("'{}' was changed meanwhile", to_terminal(filename)));
  return {};
}

}  // namespace

io::OpenPolicy policy_for_links(const CommonOptions& options) {
  io::OpenPolicy policy = policy_of(options);
  policy.test_locks = false;  // they were, and we may hold them now
  policy.allow_probe = true;  // as far as that goes, it went before
  return policy;
}

Result<io::Location> locate(const graph::Node& node) {
  Result<io::Location> location = node.file->location();
  return location ? std::move(location)
                  : fail(with_context(location.error(), to_terminal(node.filename)));
}

Result<void> check_is_file(const graph::Node& image, const std::optional<io::FileIdentity>& file) {
  if (!file || image.file->status().identity == *file)
    return {};
  return fail(ErrorCode::refused, fmt::format("'{}' was replaced by another file meanwhile",
                                              to_terminal(image.filename)));
}

Result<void> check_probed(const graph::Node& top, const CommonOptions& options,
                          const std::string& image) {
  const bool is_vouched_for = !top.format_probed || !options.policy.root.empty();
  if (is_vouched_for && !options.is_of_plan)
    return {};
  const io::Location own = TRY(locate(top));
  for (const graph::Node* node : graph::chain_of(top)) {
    if (!node->is_open())
      continue;
    const bool is_beside =
        TRY(locate(*node)).folder == own.folder &&
        (!node->data_file || TRY(node->data_file->location()).folder == own.folder);
    if (!is_beside)
      return fail(
          ErrorCode::refused,
          fmt::format("the format of '{}' was only probed, and its chain leads to a file in "
                      "another folder ('{}'): give -f qcow2 if you trust it",
                      to_terminal(image), to_terminal(node->filename)));
  }
  return {};
}

Result<void> check_recorded(const OpenedTree& tree, const CommonOptions& options,
                            const std::string& image) {
  const NodeChain nodes = graph::chain_of(*tree.top);
  if (!nodes.back()->is_open())
    return {};  // which is told better when it is to be read
  const auto recorded = TRY(graph::open_chain_of(*tree.files, policy_for_links(options),
                                                 std::make_unique<io::OverlayFile>(*tree.top->file),
                                                 tree.top->filename));
  const NodeChain linked = graph::chain_of(*recorded);
  if (!linked.back()->is_open())
    return fail(*linked.back()->gap);
  if (!is_same_chain(std::span(linked).subspan(1), std::span(nodes).subspan(1)))
    return fail(ErrorCode::refused,
                fmt::format("the chain that is given is not the one that '{}' records",
                            to_terminal(image)));
  return {};
}

Result<void> check_same_files(const NodeChain& now, const NodeChain& checked) {
  const auto is_same_node = [](const graph::Node* one, const graph::Node* other) {
    return is_same_file(one->file.get(), other->file.get()) &&
           is_same_file(one->data_file.get(), other->data_file.get());
  };
  if (std::equal(now.begin(), now.end(), checked.begin(), checked.end(), is_same_node))
    return {};
  return fail(ErrorCode::refused,
              "a layer of the chain was replaced by another file meanwhile: try again");
}

bool is_same_chain(std::span<const graph::Node* const> one,
                   std::span<const graph::Node* const> other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const graph::Node* a, const graph::Node* b) { return is_same(*a, *b); });
}

Result<void> lock_for_reading(const NodeChain& nodes) {
  return with_locks_of(nodes, io::hold_read_locks);
}

Result<void> check_may_read(const NodeChain& nodes, bool force_share) {
  if (force_share)
    return {};
  return with_locks_of(
      nodes, [](const io::File& file) { return io::test_locks(file, io::LockNeed::read); });
}

Result<void> check_unchanged(const io::FileSource& files, const NodeChain& nodes) {
  for (const graph::Node* node : nodes) {
    if (node->file)
      TRY(check_file(files, node->filename, *node->file));
    if (node->data_file)
      TRY(check_file(files, node->data_filename, *node->data_file));
  }
  return {};
}

report::Planned planned(const World& world, const NodeChain& nodes) {
  report::Planned planned;
  if (!world.agreement)
    return planned;
  planned.command = world.agreement->command;
  for (const graph::Node* node : nodes) {
    if (node->file)
      planned.images.push_back({node->filename, node->file->status()});
    if (node->data_file)
      planned.images.push_back({node->data_filename, node->data_file->status()});
  }
  return planned;
}

Result<void> check_nothing_else_pending(const std::optional<Agreement>& agreement,
                                        const ChangeTarget& target, const std::string& image,
                                        edit::Operation operation) {
  if (!agreement)
    return {};
  const auto head = TRY(edit::read_pending(*target.image, target.side_files));
  const edit::Operation pending = head ? head->facts.change.operation : operation;
  if (pending == operation && (!head || operation != edit::Operation::none))
    return {};
  return fail(
      ErrorCode::refused,
      fmt::format(
          "nothing was changed: another change is pending in {}: run 'coldchain resume {}' first",
          to_terminal(image), target.side_files.operand()));
}

}  // namespace coldchain::cli
