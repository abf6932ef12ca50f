// SPDX-License-Identifier: MIT
#include <algorithm>
#include <charconv>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/map_report.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using analysis::Extent;

// The file in which the host offsets of a layer count. QEMU's name for a window, with its members
// in the order of its hash table.
std::string host_filename_of(const graph::Node& node) {
  if (!node.data_filename.empty())
    return node.data_filename;
  if (!node.window)
    return node.filename;
  return fmt::format(
      "json:{{{}\"driver\": \"raw\", {}\"file\": {{\"driver\": \"{}\", \"filename\": {}}}}}",
      node.window->offset == 0 ? "" : fmt::format("\"offset\": {}, ", node.window->offset),
      node.window->size ? fmt::format("\"size\": {}, ", *node.window->size) : "",
      node.file->status().kind == io::FileKind::block_device ? "host_device" : "file",
      to_json_string(node.filename));
}

// Prints into memory that has room for what is printed.
class LineWriter {
 public:
  explicit LineWriter(char* at) : at_(at) {}
  LineWriter& words(std::string_view text) {
    at_ = std::copy(text.begin(), text.end(), at_);
    return *this;
  }
  LineWriter& number(std::uint64_t value) {
    at_ = std::to_chars(at_, at_ + 20, value).ptr;
    return *this;
  }
  LineWriter& boolean(bool flag) { return flag ? words("true") : words("false"); }
  [[nodiscard]] char* end() const { return at_; }

 private:
  char* at_;
};

// printf's "%#-16lx": zero has no prefix, a long number takes the room that it needs.
std::string hex_column(std::uint64_t value) {
  return fmt::format("{:<16}", value == 0 ? "0" : fmt::format("{:#x}", value));
}

std::string_view kind_of(const Extent& extent, const MapLayer& layer, Absent absent) {
  if (!extent.present && absent == Absent::is_below)
    return "not in layer";
  if (!extent.present)
    return extent.past_end ? "past the end" : "absent";
  if (extent.is_lost())
    return "unreadable";
  if (extent.compressed)
    return "compressed";
  if (extent.data)
    return extent.zero ? "data (hole)" : "data";
  if (layer.format == "raw")
    return "hole";
  return extent.has_host ? "zero (reserved)" : "zero";
}

}  // namespace

std::vector<MapLayer> map_layers(const graph::Chain& chain) {
  std::vector<MapLayer> layers;
  for (const graph::Layer& layer : chain.layers()) {
    const graph::Node& node = *layer.node;
    layers.push_back({layer.index, node.filename, host_filename_of(node), node.format});
  }
  return layers;
}

Absent absent_of(const graph::Chain& chain) {
  return chain.hides_layers() ? Absent::is_below : Absent::reads_as_zeros;
}

MapWriter::MapWriter(Form form, std::vector<MapLayer> layers, Absent absent, const Sink& sink)
    : form_(form), layers_(std::move(layers)), absent_(absent), sink_(&sink) {
  for (const MapLayer& layer : layers_) {
    std::string members = fmt::format(", \"index\": {}, \"file\": {}", layer.index,
                                      to_json_string(layer.host_filename));
    if (!is_valid_utf8(layer.host_filename))
      members += fmt::format(", \"file-hex\": \"{}\"", to_hex(layer.host_filename));
    layer_members_.push_back(
        {", \"compressed\": false" + members, ", \"compressed\": true" + members});
    if (form_ == Form::provenance_json)
      longest_tail_ = std::max(longest_tail_, layer_members_.back().plain.size());
  }
  out_.reserve(2 * flush_at);
}

Result<void> MapWriter::begin(std::uint64_t start) {
  start_ = start;
  switch (form_) {
    case Form::qemu_text:
      out_ = fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
      break;
    case Form::provenance_text:
      out_ = fmt::format("{:<16}{:<16}{:<6}{:<17}{:<16}{}\n", "Offset", "Length", "Layer", "Kind",
                         "Mapped to", "File");
      break;
    default:
      out_.assign(1, '[');
  }
  return {};
}

Result<void> MapWriter::write(std::span<const Extent> extents) {
  const bool is_of_qemu = form_ == Form::qemu_text || form_ == Form::qemu_json;
  const bool has_holes =
      is_of_qemu && std::any_of(extents.begin(), extents.end(),
                                [](const Extent& extent) { return extent.hole_of_qemu; });
  if (has_holes) {
    std::vector<Extent> as_in_qemu(extents.begin(), extents.end());
    for (Extent& extent : as_in_qemu)
      extent.zero = extent.zero || extent.hole_of_qemu;
    TRY(join(as_in_qemu));
  } else {
    TRY(is_of_qemu ? join(extents) : print(extents));
  }
  return out_.size() >= flush_at ? flush() : Result<void>{};
}

// The last extent waits for the next. Where all can be read, the map has joined them already.
Result<void> MapWriter::join(std::span<const Extent> extents) {
  const bool is_all_readable =
      unreadable_.empty() &&
      std::none_of(extents.begin(), extents.end(), [](const Extent& e) { return e.is_lost(); });
  while (!extents.empty()) {
    if (joined_ && continues_in_qemu(*joined_, extents.front())) {
      joined_->guest.end = extents.front().guest.end;
      unreadable_.add(extents.first(1));
      extents = extents.subspan(1);
      continue;
    }
    TRY(print_joined());
    const std::size_t printed = is_all_readable ? extents.size() - 1 : 0;
    TRY(print(extents.first(printed)));
    joined_ = extents[printed];
    unreadable_.add(extents.subspan(printed, 1));
    extents = extents.subspan(printed + 1);
  }
  return {};
}

Result<void> MapWriter::print_joined() {
  if (joined_)
    TRY(print(std::span(&*joined_, 1)));
  joined_.reset();
  if (form_ == Form::qemu_json && !unreadable_.empty()) {
    out_.pop_back();  // the end of the object
    out_ += ", " + unreadable_member(unreadable_) + "}";
  }
  unreadable_ = {};
  return {};
}

Result<void> MapWriter::print(std::span<const Extent> extents) {
  const bool text = form_ == Form::qemu_text || form_ == Form::provenance_text;
  if (!text)
    append_json(extents);
  for (const Extent& extent : text ? extents : std::span<const Extent>{}) {
    if (form_ == Form::qemu_text)
      TRY(append_qemu_text(extent));
    else
      append_provenance_text(extent);
  }
  return {};
}

Result<void> MapWriter::end() {
  TRY(print_joined());
  if (form_ == Form::qemu_json && first_)
    out_ += fmt::format(
        "{{ \"start\": {}, \"length\": 0, \"depth\": 0, \"present\": false, "
        "\"zero\": false, \"data\": false}}",
        start_);
  if (form_ == Form::qemu_json || form_ == Form::provenance_json)
    out_ += "]\n";
  return flush();
}

Result<void> MapWriter::flush() {
  Result<void> done = (*sink_)(out_);
  out_.clear();
  return done;
}

Result<void> MapWriter::append_qemu_text(const Extent& extent) {
  const bool is_unknown = extent.is_lost() && !extent.compressed && !extent.has_host;
  if (is_unknown)
    return {};  // which is reported in the end
  if (extent.data && !extent.zero && !extent.has_host) {
    TRY(flush());
    return fail(ErrorCode::unsupported,
                "File contains external, encrypted or compressed clusters; "
                "'--output=json' and '--provenance' show them.");
  }
  if (extent.data && !extent.zero)
    out_ += fmt::format("{}{}{}{}\n", hex_column(extent.guest.begin.value),
                        hex_column(extent.guest.size()), hex_column(extent.host.value),
                        to_terminal(layers_[extent.layer].host_filename));
  return {};
}

// The hot path of a large map. Room for the longest lines is made once for many extents; then the
// fixed words are copied and the digits printed straight into it.
void MapWriter::append_json(std::span<const Extent> extents) {
  constexpr std::size_t longest_line = 256;
  constexpr std::size_t batch = 256;
  while (!extents.empty()) {
    const std::span<const Extent> some = extents.first(std::min(batch, extents.size()));
    extents = extents.subspan(some.size());
    const std::size_t used = out_.size();
    out_.resize(used + some.size() * (longest_line + longest_tail_));
    LineWriter line(out_.data() + used);
    for (const Extent& extent : some) {
      line.words(first_ ? "" : ",\n");
      first_ = false;
      line.words("{ \"start\": ").number(extent.guest.begin.value);
      line.words(", \"length\": ").number(extent.guest.size());
      line.words(", \"depth\": ").number(extent.layer);
      line.words(", \"present\": ").boolean(extent.present);
      line.words(", \"zero\": ")
          .boolean(extent.zero && (extent.present || absent_ == Absent::reads_as_zeros));
      line.words(", \"data\": ").boolean(extent.data);
      if (extent.has_host)
        line.words(", \"offset\": ").number(extent.host.value);
      line.words(provenance_members(extent));
      if (form_ == Form::provenance_json && extent.is_lost())
        line.words(", \"unreadable\": \"")
            .words(analysis::to_string(extent.unreadable))
            .words("\"");
      line.words("}");
    }
    out_.resize(static_cast<std::size_t>(line.end() - out_.data()));
  }
}

// The members that only provenance adds; empty for qemu-img's form.
std::string_view MapWriter::provenance_members(const Extent& extent) const {
  if (form_ != Form::provenance_json)
    return {};
  if (!extent.present)
    return ", \"compressed\": false";
  const LayerMembers& members = layer_members_[extent.layer];
  return extent.compressed ? members.compressed : members.plain;
}

void MapWriter::append_provenance_text(const Extent& extent) {
  const MapLayer& layer = layers_[extent.layer];
  out_ += fmt::format("{}{}{:<6}{:<17}{}{}\n", hex_column(extent.guest.begin.value),
                      hex_column(extent.guest.size()),
                      extent.present ? std::to_string(layer.index) : "-",
                      kind_of(extent, layer, absent_),
                      extent.has_host ? hex_column(extent.host.value) : fmt::format("{:<16}", "-"),
                      extent.present ? to_terminal(layer.host_filename) : "-");
}

Result<void> write_summary_text(const std::vector<MapLayer>& layers,
                                const analysis::Provision& provision, Absent absent,
                                const Style& style, const Sink& sink) {
  using enum Table::Align;
  Table table({"LAYER", "DATA", "COMPRESSED", "ZERO", "UNREADABLE", "TOTAL", "FILE"},
              {right, right, right, right, right, right, left});
  std::uint64_t total = provision.absent;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const analysis::Provided& provided = provision.layers[i];
    total += provided.total();
    table.add({std::to_string(layers[i].index), human_size(provided.data),
               human_size(provided.compressed), human_size(provided.zero),
               human_size(provided.unreadable), human_size(provided.total()),
               to_terminal(layers[i].filename)});
  }
  table.add({"-", "", "", "", "", human_size(provision.absent),
             absent == Absent::is_below ? "(not in this layer)" : "(in no layer: reads as zeros)"});
  table.add({"all", "", "", "", "", human_size(total), ""});
  return sink(table.text(style));
}

Result<void> write_summary_json(const std::vector<MapLayer>& layers,
                                const analysis::Provision& provision, const Sink& sink) {
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.map-summary").member("version", 1);
  json.key("layers").begin_array();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const analysis::Provided& provided = provision.layers[i];
    json.begin_object().member("index", layers[i].index);
    json.name_member("filename", layers[i].filename)
        .member("format", layers[i].format)
        .member("data", provided.data)
        .member("compressed", provided.compressed)
        .member("zero", provided.zero)
        .member("unreadable", provided.unreadable)
        .member("total", provided.total())
        .end_object();
  }
  json.end_array().member("absent", provision.absent).end_object();
  return sink(json.take() + "\n");
}

}  // namespace coldchain::report
