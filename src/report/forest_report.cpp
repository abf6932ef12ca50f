// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/forest_report.hpp>
#include <coldchain/report/tree_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using graph::Forest;
using graph::ForestImage;

const analysis::NodeUsage* usage_of(const ForestUsage& usage, const ForestImage& image) {
  const auto found = usage.find(image.path);
  return found == usage.end() ? nullptr : &found->second;
}

// A file: its storage. A device: the part in use, once that has been read.
std::optional<std::uint64_t> allocation_of(const ForestUsage& usage, const ForestImage& image) {
  if (image.status.kind != io::FileKind::block_device)
    return image.status.allocated;
  if (image.format == "raw")
    return image.status.size;
  const analysis::NodeUsage* used = usage_of(usage, image);
  return used != nullptr && used->image_end ? std::optional(used->image_end->offset.value)
                                            : std::nullopt;
}

std::string remark(const ForestImage& image) {
  std::vector<std::string> words;
  if (!image.in_scan)
    words.emplace_back("outside the scan");
  if (graph::is_leaf(image))
    words.emplace_back("leaf");
  if (graph::is_shared(image))
    words.push_back(fmt::format("shared by {}", image.overlays.size()));
  if (graph::is_orphan(image))
    words.emplace_back("orphan");
  if (image.is_in_loop)
    words.emplace_back("loop");
  if (graph::is_unused(image))
    words.emplace_back("unused");
  if (!image.data_file_of.empty())
    words.emplace_back("data file");
  if (!image.other_paths.empty())
    words.push_back(fmt::format("{} names", image.other_paths.size() + 1));
  if (!image.findings.empty())
    words.push_back(
        fmt::format("{} finding{}", image.findings.size(), image.findings.size() == 1 ? "" : "s"));
  return fmt::format("{}", fmt::join(words, ", "));
}

void add_row(Table& table, const std::string& branch, const ForestImage& image,
             const ForestUsage& usage) {
  const std::optional<std::uint64_t> allocation = allocation_of(usage, image);
  const analysis::NodeUsage* used = usage_of(usage, image);
  std::string end = "-";
  if (used != nullptr && used->image_end)
    end = (used->image_end->is_lower_bound ? ">=" : "") + human_size(used->image_end->offset.value);
  std::string own = "-";
  if (used != nullptr && used->own)
    own = human_size(used->own->data + used->own->compressed);
  table.add({branch + to_terminal(image.path), image.format,
             image.is_open ? human_size(image.capacity) : "-",
             allocation ? human_size(*allocation) : "-", human_size(image.status.size), end, own,
             remark(image)});
}

// Depth first without recursion: a chain may be as long as a folder has files. From some depth on,
// no further to the right.
void add_rows(Table& table, const Forest& forest, std::size_t root, const ForestUsage& usage,
              const Style& style) {
  struct Place {
    std::size_t image;
    std::size_t depth = 0;
    std::string indent{};  // what precedes the children
    std::string branch{};
  };
  constexpr std::size_t deepest = 16;
  std::vector<Place> open_ends = {{root}};
  while (!open_ends.empty()) {
    const Place place = std::move(open_ends.back());
    open_ends.pop_back();
    add_row(table, place.branch, forest.images[place.image], usage);
    const auto& overlays = forest.images[place.image].overlays;
    for (std::size_t i = overlays.size(); i-- > 0;) {
      const bool last = i + 1 == overlays.size();
      const char* fork = style.utf8 ? (last ? "└─ " : "├─ ") : (last ? "`- " : "|- ");
      const char* line = last ? "   " : style.utf8 ? "│  " : "|  ";
      open_ends.push_back({overlays[i], place.depth + 1,
                           place.indent + (place.depth < deepest ? line : ""),
                           place.indent + fork});
    }
  }
}

bool is_in_loop(const ForestImage& image) {
  return image.is_in_loop;
}

struct Kind {
  bool (*has)(const ForestImage& image);
  std::string_view name;    // in JSON
  std::string_view plural;  // in the last line for people
};

constexpr std::array kinds = {
    Kind{graph::is_leaf, "leaf", "leaves"},      Kind{graph::is_shared, "shared", "shared"},
    Kind{graph::is_orphan, "orphan", "orphans"}, Kind{is_in_loop, "loop", "in loops"},
    Kind{graph::is_unused, "unused", "unused"},
};

std::uint64_t count_of(const Forest& forest, const Kind& kind) {
  return static_cast<std::uint64_t>(
      std::count_if(forest.images.begin(), forest.images.end(), kind.has));
}

// Writes an image as one line, which names other images by their index.
void write_image(JsonWriter& json, const Forest& forest, std::size_t index,
                 const ForestUsage& usage) {
  const ForestImage& image = forest.images[index];
  json.begin_object().member("schema", "coldchain.forest-image").member("version", 1);
  json.member("index", index);
  json.name_member("path", image.path)
      .member("format", image.format)
      .member("opened", image.is_open)
      .member("in-scan", image.in_scan);
  json.key("kinds").begin_array();
  for (const Kind& kind : kinds) {
    if (kind.has(image))
      json.value(kind.name);
  }
  json.end_array();
  json.key("other-paths").begin_array();
  for (const std::string& path : image.other_paths)
    json.begin_object().name_member("path", path).end_object();
  json.end_array();
  if (image.is_open)
    json.member("capacity", image.capacity);
  if (const auto allocation = allocation_of(usage, image))
    json.member("allocation", *allocation);
  json.member("physical", image.status.size);
  if (const analysis::NodeUsage* used = usage_of(usage, image)) {
    if (used->image_end)
      json.member("image-end", used->image_end->offset.value)
          .member("image-end-is-lower-bound", used->image_end->is_lower_bound);
    if (used->own)
      json.key("own")
          .begin_object()
          .member("data", used->own->data)
          .member("zero", used->own->zero)
          .member("compressed", used->own->compressed)
          .member("unreadable", used->own->unreadable)
          .end_object();
  }
  if (image.header)
    write_header_facts(json, *image.header);
  write_status(json, image.status);
  if (image.backing)
    json.member("backing", *image.backing);
  const auto write_indices = [&](const char* name, const std::vector<std::size_t>& indices) {
    json.key(name).begin_array();
    for (const std::size_t other : indices)
      json.value(other);
    json.end_array();
  };
  write_indices("overlays", image.overlays);
  write_indices("data-file-of", image.data_file_of);
  write_findings(json, image.findings);
  json.end_object();
}

}  // namespace

Result<void> write_forest_text(const Forest& forest, const ForestUsage& usage, const Style& style,
                               const Sink& sink) {
  using enum Table::Align;
  Table table(
      {"IMAGE", "FORMAT", "CAPACITY", "ALLOCATION", "PHYSICAL", "IMAGE END", "OWN DATA", ""},
      {left, left, right, right, right, right, right, left});
  for (const std::size_t root : forest.roots)
    add_rows(table, forest, root, usage, style);
  std::string out = table.text(style);
  for (const ForestImage& image : forest.images) {
    for (const std::string& path : image.other_paths)
      out += fmt::format("{}: the same file as {}\n", to_terminal(image.path), to_terminal(path));
    for (const finding::Finding& finding : image.findings)
      out += fmt::format("{}: {}\n", to_terminal(image.path), finding_line(style, finding));
  }
  out += fmt::format("images: {}", forest.images.size());
  for (const Kind& kind : kinds)
    out += fmt::format(", {}: {}", kind.plural, count_of(forest, kind));
  out += fmt::format("; other files: {}\n", forest.others.size());
  return sink(out);
}

Result<void> write_forest_json(const Forest& forest, const ForestUsage& usage, const Sink& sink) {
  std::string out;
  for (std::size_t i = 0; i < forest.images.size(); ++i) {
    JsonWriter line(JsonWriter::Layout::one_line);
    write_image(line, forest, i, usage);
    out += line.take() + "\n";
    if (out.size() >= flush_at)
      TRY(sink(std::exchange(out, {})));
  }
  TRY(sink(out));
  JsonWriter json(JsonWriter::Layout::one_line);
  json.begin_object().member("schema", "coldchain.forest").member("version", 2);
  json.member("images", forest.images.size());
  for (const Kind& kind : kinds)
    json.member(kind.name, count_of(forest, kind));
  json.key("roots").begin_array();
  for (const std::size_t root : forest.roots)
    json.value(root);
  json.end_array().member("other-files", forest.others.size());
  json.key("unreadable").begin_array();
  for (const Error& error : forest.unreadable)
    json.value(error.message);
  json.end_array().end_object();
  return sink(json.take() + "\n");
}

}  // namespace coldchain::report
