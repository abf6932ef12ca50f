// SPDX-License-Identifier: MIT
#include "pending_commit.hpp"

#include "readers.hpp"

#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/pending.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/ops/commit.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

using edit::PendingFile;
using edit::PendingKind;

class Search {
 public:
  Search(const TargetOptions& options, const io::FileSource& files, const io::File& image,
         World& world)
      : options_(options), files_(files), image_(image), world_(world) {}

  Result<std::optional<PendingCommit>> run() {
    const auto pending = TRY(pending_of(image_));
    if (pending && edit::is_commit_top(pending->facts.change.operation))
      return commit_of(options_.image, image_, pending->facts.change.argument,
                       pending->facts.change);
    if (pending && pending->facts.change.operation != edit::Operation::commit_base)
      return std::nullopt;
    if (pending)
      return commit_of_base(pending->facts.change);
    auto found = TRY(below());
    if (!found)
      found = TRY(above());
    if (!found && named_by_)
      return fail(*named_by_);
    return found;
  }

 private:
  static std::uint64_t number_of(const io::File& image) {
    return image.status().lasting_identity.inode;
  }

  [[nodiscard]] PendingCommit commit_of(const std::string& top, const io::File& file,
                                        std::uint64_t base, const edit::ChangeFacts& change) const {
    const io::FileIdentity& identity = file.status().identity;
    return {top, identity, identity == image_.status().identity, base, change};
  }

  [[nodiscard]] Result<edit::SideFiles> side_files_of(const io::File& image) const {
    edit::SideFolders folders = options_.folders;
    folders.undo.clear();
    return edit::SideFiles::of(image, folders);
  }

  [[nodiscard]] Result<std::optional<edit::JournalHead>> pending_of(const io::File& image) const {
    const edit::SideFiles side_files = TRY(side_files_of(image));
    return edit::read_pending(image, side_files);
  }

  // Only looks: links are followed whatever their formats.
  [[nodiscard]] io::OpenPolicy policy() const {
    io::OpenPolicy policy = options_.policy;
    policy.allow_probe = true;
    return policy;
  }

  // What lies beside another image, which need not be of this commit. What is believed decides;
  // what is not, but names this image, is remembered for the message.
  std::optional<edit::ChangeFacts> change_of(const std::string& name, const io::File& other,
                                             bool (*is_wanted)(edit::Operation)) {
    const auto side_files = side_files_of(other);
    const Result<PendingFile> found =
        side_files ? edit::look_at_pending(other, *side_files) : fail(side_files.error());
    if (found && found->error && !found->head)
      unreadable_ = found->error;
    if (!found || !found->head)
      return std::nullopt;
    const edit::ChangeFacts& change = found->head->facts.change;
    if (!is_wanted(change.operation) || change.argument != number_of(image_))
      return std::nullopt;
    if (found->kind == PendingKind::believed)
      return change;
    named_by_ =
        Error{ErrorCode::refused,
              fmt::format("{} has no journal, and nothing was written to it. The journal of "
                          "{} names it: {}",
                          to_terminal(options_.image), to_terminal(name), found->error->message),
              0};
    return std::nullopt;
  }

  // Images in the folder of this one that read through it.
  [[nodiscard]] Result<std::vector<std::string>> readers() const {
    return find_readers(files_, policy(), {TRY(image_.location()).folder}, image_.status().identity,
                        world_);
  }

  // Into this image, which has no journal: nothing has begun here yet, or all has ended.
  Result<std::optional<PendingCommit>> above() {
    const Result<std::vector<std::string>> paths = readers();
    for (const std::string& path : paths.value_or(std::vector<std::string>())) {
      const auto top = files_.open_operand(path);
      if (!top)
        continue;
      if (const auto change = change_of(path, **top, edit::is_commit_top))
        return commit_of(path, **top, number_of(image_), *change);
    }
    return std::nullopt;
  }

  // The journal of this image says that a commit into it is pending, and knows the top.
  Result<std::optional<PendingCommit>> commit_of_base(const edit::ChangeFacts& change) {
    for (const std::string& path : TRY(readers())) {
      const auto top = files_.open_operand(path);
      if (!top || number_of(**top) != change.argument)
        continue;
      const auto pending = TRY(pending_of(**top));
      const bool is_same = pending && edit::is_commit_top(pending->facts.change.operation) &&
                           pending->facts.change.argument == number_of(image_);
      return commit_of(path, **top, number_of(image_), is_same ? pending->facts.change : change);
    }
    return fail(
        ErrorCode::refused,
        fmt::format(
            "a commit into {0} is pending, and the committed image is not in the same folder: run "
            "'coldchain resume' on that image to continue or, with --abandon, to roll back; if "
            "that image is lost, run '{1}': the base is sound, and holds a part of the committed "
            "data",
            to_terminal(options_.image), TRY(side_files_of(image_)).set_aside_command()));
  }

  // Of this image into one below it, which alone has a journal: rolling back was stopped.
  Result<std::optional<PendingCommit>> below() {
    const io::OpenPolicy looking = policy();
    const auto top =
        graph::open(files_, looking, {.name = options_.image, .is_path = true, .format = "qcow2"});
    if (!top || (*top)->file->status().identity != image_.status().identity)
      return std::nullopt;
    for (const graph::Node* node : graph::chain_of(**top)) {
      if (!node->file || node == top->get())
        continue;
      const auto is_base = [](edit::Operation operation) {
        return operation == edit::Operation::commit_base;
      };
      if (const auto change = change_of(node->filename, *node->file, is_base))
        return commit_of(options_.image, image_, number_of(*node->file), *change);
      // It might be of a commit of this image.
      if (const auto error = std::exchange(unreadable_, std::nullopt))
        world_.complain(*error);
    }
    return std::nullopt;
  }

  const TargetOptions& options_;
  const io::FileSource& files_;
  const io::File& image_;
  World& world_;
  std::optional<Error> named_by_;    // a journal of another image that is not believed
  std::optional<Error> unreadable_;  // what lies beside the last image that was looked at
};

}  // namespace

Result<std::optional<PendingCommit>> find_pending_commit(const TargetOptions& image, World& world) {
  const auto files = TRY(world.files(image.policy));
  const auto opened = files->open_operand(image.image);
  // Why it cannot be opened, the change itself says.
  if (!opened)
    return std::nullopt;
  return Search(image, *files, **opened, world).run();
}

}  // namespace coldchain::cli
