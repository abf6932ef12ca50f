// SPDX-License-Identifier: MIT
// The options that verbs share: how the image is named and opened, and how the answer looks.
#pragma once

#include "access_times.hpp"
#include "command_line.hpp"
#include "world.hpp"

#include <memory>
#include <optional>
#include <string>

#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::cli {

struct CommonOptions {
  std::optional<std::string> format;
  bool force_share = false;
  bool image_opts = false;
  bool is_path = false;  // IMAGE is no name that is parsed: a file that was found, or opened before
  std::optional<std::string> object;
  std::string output = "human";
  std::string color = "auto";
  std::string probe = "qemu";
  io::OpenPolicy policy;
  std::shared_ptr<AccessTimes> access_times{};  // of a verb that only looks
  bool no_follow = false;
  // They come from a plan file, which vouches for no format, and `format` was not given with it.
  bool is_of_plan = false;

  [[nodiscard]] bool json() const { return output == "json"; }
};

// Of a verb that changes what it looks at: who goes on with it finds the same holes.
[[nodiscard]] CommonOptions options_of_change();

void add_common_options(CommandLine app, CommonOptions& options);

// --evidence, of verbs that only look, and the guard of the policy. A -q that the verb has counts.
void add_evidence_option(CommandLine app, CommonOptions& options,
                         const std::shared_ptr<AccessTimes>& access_times);

// --unreadable, of verbs that copy guest data.
void add_unreadable_option(CommandLine app, bool& unreadable_are_zeros);

// What an opened tree needs to stay alive, and the tree.
struct OpenedTree {
  std::unique_ptr<io::FileSource> files;
  std::unique_ptr<graph::Node> top;
};

[[nodiscard]] io::OpenPolicy policy_of(const CommonOptions& options);

// An error where --object was given.
[[nodiscard]] Result<void> check_no_secrets(const CommonOptions& options);

// An error where --evidence has refused a file or folder.
[[nodiscard]] Result<void> check_evidence(const CommonOptions& options);

// Opens IMAGE; `follow_links` false leaves out what lies below it. Errors name the image.
[[nodiscard]] Result<OpenedTree> open_tree(const CommonOptions& options, const std::string& image,
                                           bool follow_links, const World& world,
                                           graph::OpenFor purpose = graph::OpenFor::reading);

// The same of a name that is read already; `image` is what messages call it.
[[nodiscard]] Result<OpenedTree> open_spec(const CommonOptions& options, const std::string& image,
                                           graph::NameSpec spec, const World& world);

// Says what of the guest's disk cannot be read, and why.
void complain_of_unreadable(const graph::Chain& chain, const analysis::UnreadableRanges& unreadable,
                            World& world);

}  // namespace coldchain::cli
