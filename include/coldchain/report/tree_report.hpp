// SPDX-License-Identifier: MIT
// `tree IMAGE…`: the backing tree for people and as JSON (docs/json.md, coldchain.tree).
#pragma once

#include <optional>
#include <set>
#include <vector>

#include <coldchain/analysis/usage.hpp>
#include <coldchain/analysis/watermark.hpp>
#include <coldchain/graph/layer_names.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

struct TreeLayer {
  const graph::Node* node = nullptr;
  analysis::Sizes sizes;
  std::optional<analysis::NodeUsage> usage;         // nothing with --fast
  std::optional<analysis::Provided> provides;       // nothing with --fast or where it is not known
  std::optional<std::uint64_t> provides_elsewhere;  // of the top: bytes that no layer has
  std::optional<analysis::Watermark> watermark;     // where a limit was given
  std::optional<graph::LayerName> name;             // if the layer belongs to a disk of a machine
};

using Tree = std::vector<TreeLayer>;  // the top first

// What the trees of a machine take together. A file that several trees share counts once.
struct TreeTotals {
  std::uint64_t disks = 0;
  std::uint64_t capacity = 0;    // of the tops
  std::uint64_t allocation = 0;  // of all files
  std::uint64_t physical = 0;
  std::set<io::FileIdentity> files{};

  void add(const Tree& tree);
};
[[nodiscard]] Result<void> write_totals_text(const TreeTotals& totals, const Sink& sink);
void write_totals_json(JsonWriter& json, const TreeTotals& totals);

[[nodiscard]] Result<void> write_tree_text(const Tree& tree, bool details, const Style& style,
                                           const Sink& sink);
// One element of "trees": the layers side by side, each with the indices of its children.
void write_tree_json(JsonWriter& json, std::string_view image, const Tree& tree);
// The element for an image that could not be opened.
void write_tree_error_json(JsonWriter& json, std::string_view image, const Error& error);

// compat, cluster size, refcount bits, features, names: JSON members, also of a forest's images.
void write_header_facts(JsonWriter& json, const qcow2::Header& header);

// Permissions, owner and timestamps of an open file, as JSON members.
void write_status(JsonWriter& json, const io::FileStatus& status);

}  // namespace coldchain::report
