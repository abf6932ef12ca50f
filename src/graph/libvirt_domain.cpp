// SPDX-License-Identifier: MIT
#include "links.hpp"

#include <charconv>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/libvirt_domain.hpp>
#include <coldchain/graph/open.hpp>

#include <fmt/format.h>
#include <pugixml.hpp>

namespace coldchain::graph {

namespace {

// "4" or "[4]"; nothing for anything else.
std::optional<std::uint32_t> count_of(const pugi::xml_attribute& attribute) {
  std::string_view text = attribute.value();
  if (text.starts_with('[') && text.ends_with(']'))
    text = text.substr(1, text.size() - 2);
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  return is_number ? std::optional(number) : std::nullopt;
}

Result<std::uint64_t> number_of(const pugi::xml_node& node, const char* name) {
  const std::string_view text = node.attribute(name).value();
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(ErrorCode::invalid_argument,
                fmt::format("<{}>: '{}' is not a number of bytes", node.name(), name));
  return number;
}

// `element`: a <disk> or <backingStore>; `format`: its <driver> or <format>.
Result<DomainSource> source_of(const pugi::xml_node& element, const pugi::xml_node& format) {
  const pugi::xml_node source = element.child("source");
  DomainSource layer;
  layer.type = element.attribute("type").as_string("file");
  layer.format = format.attribute("type").as_string("raw");
  if (layer.type == "file")
    layer.path = source.attribute("file").value();
  else if (layer.type == "block")
    layer.path = source.attribute("dev").value();
  layer.pool = source.attribute("pool").value();
  layer.volume = source.attribute("volume").value();
  layer.protocol = source.attribute("protocol").value();
  for (const pugi::xml_node& slice : source.child("slices").children("slice")) {
    if (std::string_view(slice.attribute("type").value()) == "storage")
      layer.window = {TRY(number_of(slice, "offset")), TRY(number_of(slice, "size"))};
  }
  const bool is_top = std::string_view(element.name()) == "disk";
  layer.index = count_of((is_top ? source : element).attribute("index"));
  layer.node = count_of(element.child("driver").attribute("node"));
  if (!layer.node)
    layer.node = count_of(element.attribute("node"));
  layer.data_path = source.child("dataStore").child("source").attribute("file").value();
  return layer;
}

Result<DomainDisk> disk_of(const pugi::xml_node& element) {
  DomainDisk disk;
  disk.target = element.child("target").attribute("dev").value();
  disk.alias = element.child("alias").attribute("name").value();
  disk.device = element.attribute("device").as_string("disk");
  if (element.child("source").empty())
    return disk;
  disk.layers.push_back(TRY(source_of(element, element.child("driver"))));
  for (pugi::xml_node below = element.child("backingStore"); !below.empty();
       below = below.child("backingStore")) {
    if (below.child("source").empty()) {
      disk.ends_chain = true;
      break;
    }
    if (disk.layers.size() == max_layers)
      return fail(ErrorCode::invalid_argument, fmt::format("disk '{}' has more than {} layers",
                                                           to_terminal(disk.target), max_layers));
    // libvirt writes <format>. A <driver> in its place has the same attribute.
    const pugi::xml_node format =
        below.child("format").empty() ? below.child("driver") : below.child("format");
    disk.layers.push_back(TRY(source_of(below, format)));
  }
  return disk;
}

Result<std::string> path_of(const DomainSource& layer,
                            const std::map<std::string, std::string>& pools) {
  if (layer.type == "volume") {
    const auto pool = pools.find(layer.pool);
    if (pool == pools.end())
      return fail(ErrorCode::unsupported,
                  fmt::format("volume '{}' is in the pool '{}', whose folder is not known",
                              to_terminal(layer.volume), to_terminal(layer.pool)));
    return pool->second + "/" + layer.volume;
  }
  if (!layer.protocol.empty())
    return fail(ErrorCode::unsupported,
                fmt::format("the protocol '{}' is not contacted", to_terminal(layer.protocol)));
  if (layer.path.empty())
    return fail(ErrorCode::unsupported,
                fmt::format("a source of type '{}' is not read", to_terminal(layer.type)));
  return layer.path;
}

// Whether the backing file that a header records is the one that was opened.
bool is_recorded(const io::FileSource& files, const Node& overlay, const Node& backing) {
  const Result<NameSpec> recorded = recorded_backing(overlay.qcow2_image()->header());
  if (!recorded)
    return false;
  if (!recorded->protocol.empty())
    return backing.file == nullptr;
  const std::string path = resolve_path(overlay.filename, recorded->path);
  if (path == backing.filename || backing.file == nullptr)
    return path == backing.filename;
  const Result<std::unique_ptr<io::File>> file = files.open(path);
  return file && (*file)->status().identity == backing.file->status().identity;
}

// What differs between the header of a layer and what was opened below it; empty: nothing.
std::string difference(const io::FileSource& files, const Node& overlay) {
  const qcow2::Header& header = overlay.qcow2_image()->header();
  const std::string recorded = header.backing_file().value_or("");
  const Node* backing = overlay.backing();
  if (backing == nullptr)
    return recorded.empty() ? ""
                            : fmt::format(
                                  "the image records '{}', and the definition ends the "
                                  "chain above it",
                                  to_terminal(recorded));
  if (recorded.empty())
    return fmt::format("the image records no backing file, and the definition names '{}'",
                       to_terminal(backing->filename));
  if (!is_recorded(files, overlay, *backing))
    return fmt::format("the image records '{}', and the definition names '{}'",
                       to_terminal(recorded), to_terminal(backing->filename));
  const auto format = header.backing_format();
  if (format && *format != backing->format)
    return fmt::format("the image records the format {} for '{}', and the definition {}",
                       to_terminal(*format), to_terminal(recorded), to_terminal(backing->format));
  return "";
}

}  // namespace

void compare_with_headers(const io::FileSource& files, Node& top) {
  for (Node* node = &top; node != nullptr;
       node = node->children.empty() ? nullptr : node->children.front().get()) {
    if (node->qcow2_image() == nullptr)
      continue;
    if (std::string text = difference(files, *node); !text.empty())
      node->findings.push_back({finding::Code::link_definition_differs, std::move(text)});
  }
}

Result<std::vector<DomainDisk>> parse_domain(std::string_view xml) {
  if (xml.size() > max_xml_bytes)
    return fail(ErrorCode::invalid_argument,
                fmt::format("is longer than {}", human_size(max_xml_bytes)));
  pugi::xml_document document;
  const pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size());
  if (!parsed)
    return fail(ErrorCode::invalid_argument,
                fmt::format("is not XML: {} at byte {}", parsed.description(), parsed.offset));
  const pugi::xml_node root = document.document_element();
  const bool is_disk = std::string_view(root.name()) == "disk";
  if (!is_disk && std::string_view(root.name()) != "domain")
    return fail(ErrorCode::invalid_argument, "is not the XML of a domain or a disk");
  std::vector<DomainDisk> disks;
  const auto add = [&](const pugi::xml_node& element) -> Result<void> {
    if (disks.size() == max_disks)
      return fail(ErrorCode::invalid_argument, fmt::format("has more than {} disks", max_disks));
    disks.push_back(TRY(disk_of(element)));
    return {};
  };
  if (is_disk)
    TRY(add(root));
  for (const pugi::xml_node& element : root.child("devices").children("disk"))
    TRY(add(element));
  return disks;
}

Result<NameSpec> spec_of(const DomainDisk& disk, const std::map<std::string, std::string>& pools) {
  if (disk.layers.empty())
    return fail(ErrorCode::not_found, "there is no medium");
  std::unique_ptr<NameSpec> below;
  for (auto layer = disk.layers.rbegin(); layer != disk.layers.rend(); ++layer) {
    auto spec = std::make_unique<NameSpec>();
    const bool is_top = std::next(layer) == disk.layers.rend();
    if (is_top || layer->protocol.empty())
      spec->path = TRY(path_of(*layer, pools));
    else
      spec->protocol = layer->protocol;
    spec->format = layer->format;
    spec->window = layer->window;
    if (!layer->data_path.empty())
      spec->data_file = std::make_unique<NameSpec>(plain_path(layer->data_path));
    const bool is_last = layer == disk.layers.rbegin();
    spec->without_backing = is_last && disk.ends_chain;
    spec->backing = std::move(below);
    below = std::move(spec);
  }
  return std::move(*below);
}

}  // namespace coldchain::graph
