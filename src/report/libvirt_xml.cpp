// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <filesystem>

#include <coldchain/analysis/luks.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/libvirt_source.hpp>
#include <coldchain/report/libvirt_xml.hpp>
#include <coldchain/report/xml_writer.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using graph::LibvirtSource;

// The protocols of libvirt's domain schema.
constexpr std::array<std::string_view, 13> protocols = {
    "nbd",  "rbd",     "iscsi",    "http", "https", "ftp", "ftps",
    "tftp", "gluster", "sheepdog", "ssh",  "nfs",   "vxhs"};

// The formats that libvirt has.
constexpr std::array<std::string_view, 16> formats = {
    "raw", "dir", "bochs", "cloop", "dmg",  "iso",   "vpc", "vdi",
    "fat", "vhd", "ploop", "cow",   "qcow", "qcow2", "qed", "vmdk"};

template <std::size_t count>
bool is_one_of(const std::array<std::string_view, count>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string folder_of(const std::string& path) {
  return std::filesystem::path(path).lexically_normal().parent_path().string();
}

std::string timestamp(const io::Timestamp& time) {
  return time.nanoseconds == 0 ? std::to_string(time.seconds)
                               : fmt::format("{}.{:09}", time.seconds, time.nanoseconds);
}

bool is_device(const graph::Node& node) {
  return node.file && node.file->status().kind == io::FileKind::block_device;
}

class Writer {
 public:
  Writer(const Tree& tree, const LibvirtXmlOptions& options) : tree_(tree), options_(options) {
    sources_.push_back({.path = absolute(tree.front().node->filename), .is_local = true});
    for (std::size_t i = 1; i < tree.size(); ++i)
      sources_.push_back(graph::libvirt_source(sources_[i - 1].path, recorded_name(i)));
  }

  Result<std::string> volume() {
    const std::string& path = sources_.front().path;
    const graph::Node& node = *tree_.front().node;
    const bool is_block = is_device(node) && path.starts_with("/dev/");
    xml_.open("volume", {{"type", is_block ? "block" : "file"}});
    xml_.text("name", path.substr(path.rfind('/') + 1)).text("key", path);
    write_sizes(tree_.front());
    xml_.open("target").text("path", path).empty("format", {{"type", node.format}});
    write_status(node);
    write_encryption(node);
    write_features(node);
    xml_.close();
    if (tree_.size() > 1 && (!options_.strict || sources_[1].path.starts_with('/')))
      write_volume_layer(1);
    return xml_.close().take();
  }

  Result<std::string> disk() {
    const TreeLayer& top = tree_.front();
    xml_.open("disk", {{"type", type_of(0)}, {"device", "disk"}});
    write_format("driver", *top.node, {{"name", "qemu"}, {"type", top.node->format}});
    TRY(write_disk_layer(0));
    return xml_.empty("target", {{"dev", options_.target}}).close().take();
  }

 private:
  [[nodiscard]] std::string absolute(const std::string& path) const {
    return path.starts_with('/') ? path : options_.folder + "/" + path;
  }

  // As the image above records it, or as the name of a json: chain has it.
  [[nodiscard]] std::string recorded_name(std::size_t i) const {
    const qcow2::Image* above = tree_[i - 1].node->qcow2_image();
    const auto recorded = above != nullptr ? above->header().backing_file() : std::nullopt;
    return recorded ? std::string(*recorded) : tree_[i].node->filename;
  }

  // As libvirt: a volume whose name leads to no file, or whose format libvirt does not have, is
  // raw.
  [[nodiscard]] std::string format_of(std::size_t i) const {
    const std::string& format = tree_[i].node->format;
    const bool is_known = options_.form == LibvirtXmlOptions::Form::domain ||
                          (sources_[i].is_local && has_form(format));
    return is_known && !format.empty() ? format : "raw";
  }

  // The recursive form describes images; no machine uses it. With another format, a machine would
  // read other data.
  [[nodiscard]] bool has_form(const std::string& format) const {
    return options_.recursive || format.empty() || is_one_of(formats, format);
  }

  [[nodiscard]] std::string type_of(std::size_t i) const {
    if (!sources_[i].is_local)
      return "network";
    return is_device(*tree_[i].node) ? "block" : "file";
  }

  void write_sizes(const TreeLayer& layer) {
    const graph::Node& node = *layer.node;
    if (!node.is_open())
      return;
    // libvirt counts all of a device. What an image uses of it is in the recursive form.
    const analysis::Sizes sizes = options_.recursive ? layer.sizes : analysis::sizes_of(node);
    const auto write = [&](const char* name, std::uint64_t bytes) {
      xml_.text(name, std::to_string(bytes), {{"unit", "bytes"}});
    };
    const auto luks = analysis::luks_facts_of(node);
    const std::uint64_t payload = luks ? luks->payload : 0;
    write("capacity", sizes.capacity - std::min(sizes.capacity, payload));
    write("allocation", sizes.allocation);
    if (sizes.physical != 0)
      write("physical", sizes.physical);
  }

  void write_status(const graph::Node& node) {
    if (!node.file)
      return;
    const io::FileStatus& status = node.file->status();
    xml_.open("permissions")
        .text("mode", fmt::format("0{:03o}", status.mode & 0777))
        .text("owner", std::to_string(static_cast<std::int32_t>(status.owner)))
        .text("group", std::to_string(static_cast<std::int32_t>(status.group)));
    if (const auto label = node.file->security_label())
      xml_.text("label", *label);
    xml_.close();
    xml_.open("timestamps")
        .text("atime", timestamp(status.accessed))
        .text("mtime", timestamp(status.modified))
        .text("ctime", timestamp(status.changed));
    // libvirt knows no time of birth on Linux, and prints 0.
    if (!options_.recursive)
      xml_.text("btime", "0");
    else if (status.born)
      xml_.text("btime", timestamp(*status.born));
    xml_.close();
  }

  void write_encryption(const graph::Node& node) {
    const qcow2::Image* qcow2 = node.qcow2_image();
    std::string format;
    if (const auto luks = analysis::luks_facts_of(node))
      format = luks->format;
    else if (qcow2 != nullptr && qcow2->header().crypt_method == 1)
      format = "qcow";
    else if (qcow2 != nullptr && qcow2->header().crypt_method != 0)
      format = "luks";
    if (!format.empty())
      xml_.open("encryption", {{"format", format}}).close();
  }

  void write_features(const graph::Node& node) {
    const qcow2::Image* qcow2 = node.qcow2_image();
    if (qcow2 == nullptr)
      return;
    const qcow2::Header& header = qcow2->header();
    // libvirt stops reading a header at a backing format that it does not have.
    const bool is_read_whole = options_.form == LibvirtXmlOptions::Form::domain ||
                               tree_.size() < 2 || has_form(tree_[1].node->format);
    if (header.version >= 3 && is_read_whole)
      xml_.text("compat", "1.1");
    if (options_.form == LibvirtXmlOptions::Form::volume)
      xml_.text("clusterSize", std::to_string(header.cluster_size()), {{"unit", "B"}});
    if (header.version < 3 || !is_read_whole)
      return;
    if (!header.has_lazy_refcounts() && !header.has_extended_l2()) {
      xml_.empty("features");
      return;
    }
    xml_.open("features");
    if (header.has_lazy_refcounts())
      xml_.empty("lazy_refcounts");
    if (header.has_extended_l2())
      xml_.empty("extended_l2");
    xml_.close();
  }

  // A layer in the folder of the volume is a volume of the same pool.
  void write_volume_layer(std::size_t i) {
    const LibvirtSource& source = sources_[i];
    const graph::Node& node = *tree_[i].node;
    const bool is_near = source.is_local && is_device(node) == is_device(*tree_.front().node) &&
                         folder_of(source.path) == folder_of(sources_.front().path);
    if (!options_.recursive || is_near)
      xml_.open("backingStore");
    else
      xml_.open("backingStore", {{"type", type_of(i)}});
    xml_.text("path", source.path);
    if (options_.recursive)
      write_sizes(tree_[i]);
    xml_.empty("format", {{"type", format_of(i)}});
    if (source.is_local && source.path.starts_with('/'))
      write_status(node);
    if (options_.recursive) {
      write_features(node);
      if (i + 1 < tree_.size())
        write_volume_layer(i + 1);
      else if (node.is_open())
        xml_.empty("backingStore");
    }
    xml_.close();
  }

  // In a <disk>, features belong to the format.
  void write_format(std::string_view element, const graph::Node& node,
                    XmlWriter::Attributes attributes) {
    if (!options_.recursive || node.qcow2_image() == nullptr) {
      xml_.empty(element, attributes);
      return;
    }
    xml_.open(element, attributes);
    write_features(node);
    xml_.close();
  }

  // The source of a layer, and all layers below it.
  Result<void> write_disk_layer(std::size_t i) {
    const TreeLayer& layer = tree_[i];
    if (!has_form(layer.node->format))
      return fail(ErrorCode::unsupported,
                  fmt::format("'{}': libvirt has no format '{}'; --recursive or --output=json "
                              "shows the layer",
                              to_terminal(layer.node->filename), to_terminal(layer.node->format)));
    TRY(write_source(i));
    if (options_.recursive) {
      write_sizes(layer);
      write_status(*layer.node);
    }
    if (i + 1 == tree_.size()) {
      if (layer.node->is_open())
        xml_.empty("backingStore");
      return {};
    }
    xml_.open("backingStore", {{"type", type_of(i + 1)}, {"index", std::to_string(i + 1)}});
    write_format("format", *tree_[i + 1].node, {{"type", format_of(i + 1)}});
    TRY(write_disk_layer(i + 1));
    xml_.close();
    return {};
  }

  Result<void> write_source(std::size_t i) {
    const LibvirtSource& source = sources_[i];
    if (!source.is_local)
      return write_network_source(source);
    const std::string_view key = is_device(*tree_[i].node) ? "dev" : "file";
    if (source.window.is_whole()) {
      xml_.empty("source", {{key, source.path}});
      return {};
    }
    const std::uint64_t size = tree_[i].sizes.capacity;
    xml_.open("source", {{key, source.path}}).open("slices");
    xml_.empty("slice", {{"type", "storage"},
                         {"offset", std::to_string(source.window.offset)},
                         {"size", std::to_string(source.window.size.value_or(size))}});
    xml_.close().close();
    return {};
  }

  Result<void> write_network_source(const LibvirtSource& source) {
    const bool needs_host = source.protocol != "rbd" && source.protocol != "sheepdog";
    if (!is_one_of(protocols, source.protocol) ||
        (needs_host && source.host.empty() && source.socket.empty()))
      return fail(
          ErrorCode::unsupported,
          fmt::format("coldchain cannot write the backing file '{}' as a source of libvirt; "
                      "--output=json shows it",
                      to_terminal(source.path)));
    if (source.export_name.empty())
      xml_.open("source", {{"protocol", source.protocol}});
    else
      xml_.open("source", {{"protocol", source.protocol}, {"name", source.export_name}});
    if (!source.socket.empty())
      xml_.empty("host", {{"transport", "unix"}, {"socket", source.socket}});
    else if (!source.port.empty())
      xml_.empty("host", {{"name", source.host}, {"port", source.port}});
    else if (!source.host.empty())
      xml_.empty("host", {{"name", source.host}});
    xml_.close();
    return {};
  }

  const Tree& tree_;
  const LibvirtXmlOptions& options_;
  std::vector<LibvirtSource> sources_;  // of each layer
  XmlWriter xml_;
};

}  // namespace

Result<void> write_libvirt_xml(const Tree& tree, const LibvirtXmlOptions& options,
                               const Sink& sink) {
  Writer writer(tree, options);
  return sink(
      TRY(options.form == LibvirtXmlOptions::Form::volume ? writer.volume() : writer.disk()));
}

}  // namespace coldchain::report
