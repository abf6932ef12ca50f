// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <ctime>
#include <string>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/tree_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

std::vector<std::string> feature_names(const qcow2::Header& header) {
  std::vector<std::string> names;
  const auto add = [&](bool has, const char* name) {
    if (has)
      names.emplace_back(name);
  };
  using namespace qcow2;
  add(header.has_lazy_refcounts(), "lazy_refcounts");
  add(header.has_extended_l2(), "extended_l2");
  add(header.compression_type() == static_cast<std::uint8_t>(CompressionType::zstd), "zstd");
  add(header.has_data_file(), "data_file");
  add(header.has_data_file() && header.data_file_is_raw(), "data_file_raw");
  add((header.autoclear_features & autoclear::bitmaps) != 0, "bitmaps");
  add(header.crypt_method == static_cast<std::uint32_t>(CryptMethod::aes), "aes");
  add(header.crypt_method == static_cast<std::uint32_t>(CryptMethod::luks), "luks");
  add(header.has_incompatible(incompatible::dirty), "dirty");
  add(header.has_incompatible(incompatible::corrupt), "corrupt");
  add(header.nb_snapshots != 0, "snapshots");
  add(header.unknown_incompatible() != 0, "unknown_incompatible");
  return names;
}

finding::Findings all_findings(const TreeLayer& layer) {
  finding::Findings findings = layer.node->findings;
  if (layer.usage)
    findings.insert(findings.end(), layer.usage->findings.begin(), layer.usage->findings.end());
  return findings;
}

std::string format_cell(const graph::Node& node) {
  const auto* qcow2 = node.qcow2_image();
  if (qcow2 != nullptr)
    return qcow2->header().version >= 3 ? "qcow2 1.1" : "qcow2 0.10";
  return node.format.empty() ? "?" : to_terminal(node.format);
}

std::string size_cell(bool known, std::uint64_t bytes) {
  return known ? human_size(bytes) : "-";
}

std::string image_end_cell(const TreeLayer& layer) {
  if (!layer.usage || !layer.usage->image_end)
    return "-";
  const analysis::ImageEnd& end = *layer.usage->image_end;
  return (end.is_lower_bound ? ">=" : "") + human_size(end.offset.value);
}

std::string provides_cell(const TreeLayer& layer, std::uint64_t guest_size) {
  if (!layer.provides)
    return "-";
  const std::uint64_t total = layer.provides->total();
  const double percent =
      guest_size == 0 ? 0 : 100.0 * static_cast<double>(total) / static_cast<double>(guest_size);
  return fmt::format("{} {:3.0f}%", human_size(total), percent);
}

// "top", then "└─ mid", then "   └─ base"; from some depth on, no further to the right.
std::string branch(std::size_t depth, const Style& style) {
  constexpr std::size_t deepest = 16;
  if (depth == 0)
    return "";
  return std::string(3 * (std::min(depth, deepest) - 1), ' ') + (style.utf8 ? "└─ " : "`- ");
}

std::string date_text(const io::Timestamp& time) {
  const auto seconds = static_cast<std::time_t>(time.seconds);
  std::tm local = {};
  localtime_r(&seconds, &local);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local)};
}

std::string details_text(std::size_t index, const TreeLayer& layer) {
  const graph::Node& node = *layer.node;
  std::string out = fmt::format("[{}] {}\n", index, to_terminal(node.filename));
  if (const auto* qcow2 = node.qcow2_image()) {
    const qcow2::Header& header = qcow2->header();
    const std::vector<std::string> features = feature_names(header);
    out += fmt::format("    cluster size {}, refcount bits {}, features: {}\n",
                       human_size(header.cluster_size()), header.refcount_bits(),
                       features.empty() ? "none" : fmt::format("{}", fmt::join(features, ", ")));
    if (!node.data_filename.empty())
      out += fmt::format("    data file {}\n", to_terminal(node.data_filename));
  }
  if (!node.file)
    return out;
  const io::FileStatus& status = node.file->status();
  return out + fmt::format("    mode {:04o}, owner {}, group {}, modified {}, accessed {}\n",
                           status.mode, status.owner, status.group, date_text(status.modified),
                           date_text(status.accessed));
}

void write_timestamp(JsonWriter& json, std::string_view name, const io::Timestamp& time) {
  json.key(name)
      .begin_object()
      .member("seconds", time.seconds)
      .member("nanoseconds", time.nanoseconds)
      .end_object();
}

void write_usage(JsonWriter& json, const TreeLayer& layer) {
  if (layer.usage && layer.usage->image_end)
    json.member("image-end", layer.usage->image_end->offset.value)
        .member("image-end-is-lower-bound", layer.usage->image_end->is_lower_bound);
  if (layer.usage && layer.usage->own) {
    const analysis::OwnUsage& own = *layer.usage->own;
    json.key("own")
        .begin_object()
        .member("data", own.data)
        .member("zero", own.zero)
        .member("compressed", own.compressed)
        .member("unreadable", own.unreadable)
        .end_object();
  }
  if (layer.provides)
    json.key("provides")
        .begin_object()
        .member("total", layer.provides->total())
        .member("data", layer.provides->data)
        .member("zero", layer.provides->zero)
        .member("compressed", layer.provides->compressed)
        .end_object();
}

// Children are told by index, not nested: a chain may have a thousand layers.
void write_layer(JsonWriter& json, const Tree& tree, std::size_t index) {
  const TreeLayer& layer = tree[index];
  const graph::Node& node = *layer.node;
  json.begin_object().member("index", index);
  json.name_member("name", node.name).name_member("filename", node.filename);
  json.member("depth", index).member("opened", node.is_open());
  if (layer.name) {
    json.name_member("position", layer.name->position);
    if (!layer.name->node.empty())
      json.name_member("node", layer.name->node);
    if (layer.name->index)
      json.member("xml-index", *layer.name->index);
  }
  if (!node.format.empty())
    json.name_member("format", node.format).member("format-probed", node.format_probed);
  if (node.is_open())
    json.member("capacity", layer.sizes.capacity)
        .member("guest-size", node.guest_size())
        .member("allocation", layer.sizes.allocation)
        .member("physical", layer.sizes.physical);
  if (node.qcow2_image() != nullptr)
    write_header_facts(json, node.qcow2_image()->header());
  if (!node.data_filename.empty())
    json.name_member("data-file", node.data_filename);
  write_usage(json, layer);
  if (layer.watermark)
    json.key("watermark")
        .begin_object()
        .member("free", layer.watermark->free)
        .member("target", layer.watermark->target)
        .member("is-short", layer.watermark->is_short)
        .end_object();
  if (node.file)
    write_status(json, node.file->status());
  write_findings(json, all_findings(layer));
  json.key("children").begin_array();
  if (index + 1 < tree.size())
    json.value(index + 1);
  json.end_array().end_object();
}

// The names that the table does not show.
std::string name_line(const graph::LayerName& name) {
  std::string more;
  if (!name.node.empty())
    more += fmt::format(" is the node {}", to_terminal(name.node));
  if (name.index)
    more += fmt::format("{} has the index {} in the XML", more.empty() ? "" : " and", *name.index);
  return more.empty() ? "" : to_terminal(name.position) + more + "\n";
}

}  // namespace

void write_header_facts(JsonWriter& json, const qcow2::Header& header) {
  json.member("compat", header.version >= 3 ? "1.1" : "0.10")
      .member("cluster-size", header.cluster_size())
      .member("refcount-bits", header.refcount_bits());
  json.key("features").begin_array();
  for (const std::string& feature : feature_names(header))
    json.value(feature);
  json.end_array();
  if (header.backing_file())
    json.name_member("backing-filename", *header.backing_file());
  if (const auto format = header.backing_format())
    json.name_member("backing-filename-format", *format);
}

void write_status(JsonWriter& json, const io::FileStatus& status) {
  json.key("permissions")
      .begin_object()
      .member("mode", fmt::format("{:04o}", status.mode))
      .member("owner", status.owner)
      .member("group", status.group)
      .end_object();
  json.key("timestamps").begin_object();
  write_timestamp(json, "atime", status.accessed);
  write_timestamp(json, "mtime", status.modified);
  write_timestamp(json, "ctime", status.changed);
  if (status.born)
    write_timestamp(json, "btime", *status.born);
  json.end_object();
}

Result<void> write_tree_text(const Tree& tree, bool details, const Style& style, const Sink& sink) {
  using enum Table::Align;
  Table table({"#", "IMAGE", "FORMAT", "CAPACITY", "ALLOCATION", "PHYSICAL", "IMAGE END",
               "OWN DATA", "COMPRESSED", "OWN ZERO", "PROVIDES"},
              {right, left, left, right, right, right, right, right, right, right, right});
  for (std::size_t i = 0; i < tree.size(); ++i) {
    const TreeLayer& layer = tree[i];
    const bool known = layer.node->is_open();
    const bool counted = layer.usage && layer.usage->own;
    const analysis::OwnUsage own = counted ? *layer.usage->own : analysis::OwnUsage{};
    table.add({std::to_string(i), branch(i, style) + to_terminal(layer.node->filename),
               format_cell(*layer.node), size_cell(known, layer.sizes.capacity),
               size_cell(known, layer.sizes.allocation), size_cell(known, layer.sizes.physical),
               image_end_cell(layer), size_cell(counted, own.data),
               size_cell(counted, own.compressed), size_cell(counted, own.zero),
               provides_cell(layer, tree.front().node->guest_size())});
  }
  std::string out = table.text(style);
  for (std::size_t i = 0; details && i < tree.size(); ++i)
    out += details_text(i, tree[i]);
  for (const TreeLayer& layer : tree)
    out += layer.name ? name_line(*layer.name) : "";
  for (std::size_t i = 0; i < tree.size(); ++i) {
    for (const finding::Finding& finding : all_findings(tree[i]))
      out += fmt::format("[{}] {}\n", i, finding_line(style, finding));
  }
  return sink(out);
}

void TreeTotals::add(const Tree& tree) {
  ++disks;
  capacity += tree.front().sizes.capacity;
  for (const TreeLayer& layer : tree) {
    if (layer.node->file && files.insert(layer.node->file->status().identity).second) {
      allocation += layer.sizes.allocation;
      physical += layer.sizes.physical;
    }
  }
}

Result<void> write_totals_text(const TreeTotals& totals, const Sink& sink) {
  return sink(fmt::format("\ndisks: {}, files: {}, capacity: {}, allocation: {}, physical: {}\n",
                          totals.disks, totals.files.size(), human_size(totals.capacity),
                          human_size(totals.allocation), human_size(totals.physical)));
}

void write_totals_json(JsonWriter& json, const TreeTotals& totals) {
  json.key("totals")
      .begin_object()
      .member("disks", totals.disks)
      .member("files", totals.files.size())
      .member("capacity", totals.capacity)
      .member("allocation", totals.allocation)
      .member("physical", totals.physical)
      .end_object();
}

void write_tree_json(JsonWriter& json, std::string_view image, const Tree& tree) {
  json.begin_object().name_member("image", image);
  json.key("layers").begin_array();
  for (std::size_t index = 0; index < tree.size(); ++index)
    write_layer(json, tree, index);
  json.end_array();
  if (tree.front().provides_elsewhere)
    json.member("absent", *tree.front().provides_elsewhere);
  json.end_object();
}

void write_tree_error_json(JsonWriter& json, std::string_view image, const Error& error) {
  json.begin_object().name_member("image", image).member("error", error.message).end_object();
}

}  // namespace coldchain::report
