// SPDX-License-Identifier: MIT
#include "links.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/io/lock.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

using finding::Code;

// Notes on the node that it leads to that a link is broken, in QEMU's words.
void mark_broken(const Node& overlay, Node& node, Code code, std::string detail) {
  std::string message = fmt::format(
      "Could not open '{}': Could not open backing file: Could not open "
      "'{}': {}",
      to_terminal(overlay.filename), to_terminal(node.filename), detail);
  if (code == Code::link_loop)
    message = fmt::format("Backing file '{}' creates an infinite loop. {}",
                          to_terminal(node.filename), message);
  const bool is_locked = code == Code::link_locked;
  if (is_locked)
    message +=
        fmt::format("\nIs another process using the image [{}]?", to_terminal(node.filename));
  node.gap = Error{is_locked ? ErrorCode::locked : ErrorCode::not_found, std::move(message), 0};
  node.findings.push_back({code, std::move(detail)});
}

// A link that is not followed or leads nowhere: noted on the node that has the link.
void mark_gap(Node& node, ErrorCode error, Code code, std::string detail) {
  node.gap = Error{
      error,
      fmt::format("'{}': {}. {}", to_terminal(node.filename), detail, finding::row(code).advice),
      0};
  node.findings.push_back({code, std::move(detail)});
}

// The data file is not there: the metadata can be read all the same.
void mark_no_data(Node& node, Code code, std::string detail) {
  mark_gap(node, ErrorCode::not_found, code, std::move(detail));
}

// The chain goes on below this node, but we do not.
void mark_stop(Node& node, Code code, std::string detail) {
  mark_gap(node, ErrorCode::refused, code, std::move(detail));
}

struct OpenRules {
  ProbeRule probe = ProbeRule::qemu;
  bool test_locks = true;
  OpenFor purpose = OpenFor::reading;
};

class Opener {
 public:
  Opener(const io::FileSource& files, const io::OpenPolicy& policy)
      : files_(files), policy_(policy) {}

  static Result<std::unique_ptr<Node>> open_file(std::unique_ptr<io::File> file,
                                                 const std::string& path,
                                                 const std::string& format) {
    auto node = std::make_unique<Node>();
    node->name = node->filename = path;
    node->file = std::move(file);
    NameSpec spec;
    spec.format = format;
    TRY(open_image(*node, spec, {ProbeRule::qemu, false, OpenFor::reading}));
    return node;
  }

  Result<std::unique_ptr<Node>> open_top(const OpenRequest& request) {
    return open_top(TRY(spec_of(request)), request);
  }

  Result<std::unique_ptr<Node>> open_top(NameSpec spec, const OpenRequest& request) {
    if (!spec.protocol.empty())
      return fail(
          ErrorCode::unsupported,
          fmt::format("'{}' is a protocol, and nothing is contacted; a path with ':' in it is "
                      "written './…'",
                      to_terminal(spec.protocol)));
    TRY(take_as_typed(spec));
    auto node = std::make_unique<Node>();
    node->name = request.name;
    node->filename = spec.path;
    node->file = TRY(files_.open(spec.path));
    if (request.format)
      spec.format = request.format;
    TRY(open_image(*node, spec, {request.probe_rule, policy_.test_locks, request.purpose}));
    note_part(node->file->status().identity, spec);
    if (request.follow_links)
      follow_all(*node, spec);
    return node;
  }

  Result<std::unique_ptr<Node>> open_chain_of(std::unique_ptr<io::File> file,
                                              const std::string& path) {
    std::unique_ptr<Node> node = TRY(open_file(std::move(file), path, "qcow2"));
    NameSpec spec;
    note_part(node->file->status().identity, spec);
    follow_all(*node, spec);
    return node;
  }

 private:
  static Result<NameSpec> spec_of(const OpenRequest& request) {
    if (request.is_path)
      return plain_path(request.name);
    return request.is_image_opts ? parse_image_opts(request.name) : parse_name(request.name);
  }

  Result<void> take_as_typed(NameSpec& spec) {
    spec.typed = true;
    if (spec.protocol.empty())
      spec.path = TRY(files_.name_of(spec.path));
    for (const auto* part : {&spec.backing, &spec.data_file}) {
      if (*part)
        TRY(take_as_typed(**part));
    }
    return {};
  }

  // Sets format and image of a node whose file is open.
  static Result<void> open_image(Node& node, const NameSpec& spec, const OpenRules& rules) {
    node.format_probed = !spec.format;
    io::WindowFile* const window = TRY(lay_window(node, spec.file_window));
    node.probed_format = TRY(probe_format(*node.file, probed_name(spec, node.filename)));
    node.format = spec.format.value_or(node.probed_format);
    if (!is_known_format(node.format))
      return fail(ErrorCode::invalid_argument,
                  fmt::format("Unknown driver '{}'", to_terminal(node.format)));
    if (!is_read_format(node.format)) {
      Error error{ErrorCode::unsupported,
                  fmt::format("the format is {}, and only qcow2 and raw are read{}", node.format,
                              spec.format ? "" : "; '-f raw' reads the bytes as they are"),
                  0};
      if (rules.purpose != OpenFor::admission)
        return fail(std::move(error));
      node.gap = with_context(std::move(error),
                              fmt::format("Could not open '{}'", to_terminal(node.filename)));
      return {};
    }
    if (node.format == "qcow2") {
      if (!spec.window.is_whole())
        return fail(ErrorCode::invalid_argument,
                    "format 'qcow2' does not support the options 'offset' and 'size'");
      if (rules.test_locks)
        TRY(io::test_locks(*node.file, io::LockNeed::read));
      qcow2::Image image =
          TRY(rules.purpose == OpenFor::reading ? qcow2::Image::open(*node.file)
                                                : qcow2::Image::open_damaged(*node.file));
      const bool demoted = rules.probe == ProbeRule::libvirt && node.format_probed &&
                           image.header().backing_file().has_value();
      if (!demoted) {
        note_header(node, image.header());
        node.image = std::move(image);
        return {};
      }
      node.format = "raw";
      node.findings.push_back(
          {Code::link_format_contradicts,
           "begins like qcow2 and names a backing file: raw by libvirt's rule"});
    }
    if (rules.test_locks)
      TRY(io::test_locks(*node.file, io::LockNeed::read_raw));
    // The map of a raw image, as QEMU's, shows where its bytes lie in the whole file.
    if (window != nullptr) {
      node.file = window->take_file();
      node.window.reset();
    }
    node.image =
        TRY(raw::Image::open(*node.file, window != nullptr ? spec.file_window : spec.window));
    if (const std::uint64_t size = node.raw_image()->exact_size(); size % 512 != 0)
      node.findings.push_back(
          {Code::raw_size_unaligned,
           fmt::format("{} bytes, of which QEMU shows {}", size, node.guest_size())});
    if (spec.format && node.probed_format != "raw")
      node.findings.push_back(
          {Code::link_format_contradicts,
           fmt::format("recorded raw, but begins like {}", node.probed_format)});
    return {};
  }

  // Takes the place of the file. Nothing where the window is the whole file.
  static Result<io::WindowFile*> lay_window(Node& node, const io::Window& window) {
    if (window.is_whole())
      return nullptr;
    const HostRange range = TRY(io::range_of(window, *node.file));
    auto part = std::make_unique<io::WindowFile>(std::move(node.file), range);
    io::WindowFile* const opened = part.get();
    node.file = std::move(part);
    node.window = window;
    return opened;
  }

  static void note_header(Node& node, const qcow2::Header& header) {
    if (header.unknown_incompatible() != 0) {
      const std::string names =
          fmt::format("{}", fmt::join(header.unknown_incompatible_names(), ", "));
      node.findings.push_back({Code::image_unknown_incompatible, to_terminal(names)});
    }
    if (header.has_incompatible(qcow2::incompatible::dirty))
      node.findings.push_back({Code::image_dirty, "incompatible feature bit 0 is set"});
    if (header.has_incompatible(qcow2::incompatible::corrupt))
      node.findings.push_back({Code::image_corrupt_bit, "incompatible feature bit 1 is set"});
    if (header.crypt_method != 0)
      node.findings.push_back({Code::image_encrypted, header.crypt_method == 1 ? "AES" : "LUKS"});
    if (header.data_file_is_raw() && header.has_data_file() && header.backing_file())
      node.findings.push_back({Code::data_file_with_backing, "data-file-raw is set"});
  }

  // Opens the data file and the chain below `top`, layer by layer.
  void follow_all(Node& top, NameSpec& top_spec) {
    Node* node = &top;
    NameSpec spec = std::move(top_spec);
    for (std::size_t layers = 1; node != nullptr; ++layers) {
      const qcow2::Image* image = node->qcow2_image();
      if (image == nullptr)
        return;
      const bool has_links =
          image->header().backing_file().has_value() || image->header().has_data_file();
      const bool probed_below_top = node != &top && node->format_probed;
      if (has_links && probed_below_top && !policy_.allow_probe) {
        mark_stop(*node, Code::link_probed_has_links,
                  "its format was only probed, so its backing or data file is not followed");
        return;
      }
      follow_data_file(*node, spec);
      const bool name_is_recorded = spec.backing == nullptr;
      std::optional<NameSpec> next = backing_spec(*node, spec);
      if (!next)
        return;
      if (layers >= max_layers) {
        mark_stop(*node, Code::link_too_deep, fmt::format("more than {} layers", max_layers));
        return;
      }
      Node* child = node->children.emplace_back(std::make_unique<Node>()).get();
      child->name = name_is_recorded         ? *image->header().backing_file()
                    : next->protocol.empty() ? next->path
                                             : next->protocol + ":";
      open_backing(*node, *child, *next);
      node = child;
      spec = std::move(*next);
    }
  }

  void follow_data_file(Node& node, NameSpec& spec) {
    auto& image = std::get<qcow2::Image>(node.image);
    if (!image.header().has_data_file())
      return;
    // A data file's recorded name is a literal local path, never parsed: it could name anything.
    const std::optional<std::string> recorded = image.header().data_file_name();
    if (spec.data_file && !is_plain_file(*spec.data_file)) {
      mark_no_data(node, Code::link_not_allowed, "the data file given is not a plain local file");
      return;
    }
    if (spec.data_file)
      node.data_filename = path_from(node, *spec.data_file);
    else if (recorded && !recorded->empty())
      node.data_filename = resolve_path(node.filename, *recorded);
    if (node.data_filename.empty()) {
      mark_no_data(node, Code::data_file_missing_name, "'data-file' is required for this image");
      return;
    }
    if (!policy_.follow) {
      mark_no_data(node, Code::link_not_followed,
                   fmt::format("data file '{}' was not opened", to_terminal(node.data_filename)));
      return;
    }
    Result<std::unique_ptr<io::File>> file = files_.open(node.data_filename);
    if (file && policy_.test_locks) {
      if (Result<void> lock = io::test_locks(**file, io::LockNeed::read_raw); !lock)
        file = fail(lock.error());
    }
    if (!file) {
      mark_no_data(
          node, link_code(file.error()),
          fmt::format("data file '{}': {}", to_terminal(node.data_filename), file.error().message));
      return;
    }
    node.data_file = std::move(*file);
    image.attach_data_file(*node.data_file);
  }

  // Where a name leads that an image, or the user together with that image, gave.
  static std::string path_from(const Node& node, const NameSpec& spec) {
    return spec.typed ? spec.path : resolve_path(node.filename, spec.path);
  }

  static bool is_plain_file(const NameSpec& spec) {
    const bool as_it_is = !spec.format || *spec.format != "qcow2";
    return spec.protocol.empty() && as_it_is && spec.window.is_whole() &&
           spec.file_window.is_whole();
  }

  // What the backing file is, by the options of the name or by the header; nothing without one.
  static std::optional<NameSpec> backing_spec(Node& node, NameSpec& spec) {
    const qcow2::Header& header = node.qcow2_image()->header();
    if (spec.without_backing)
      return std::nullopt;
    if (spec.backing)
      return std::move(*spec.backing);
    if (!header.backing_file() || header.backing_file()->empty())
      return std::nullopt;
    Result<NameSpec> parsed = recorded_backing(header);
    if (!parsed) {
      Node& child = *node.children.emplace_back(std::make_unique<Node>());
      child.name = child.filename = *header.backing_file();
      child.format = header.backing_format().value_or("");
      mark_broken(node, child, Code::link_not_allowed, parsed.error().message);
      return std::nullopt;
    }
    return std::move(*parsed);
  }

  // With the command that records where the file is now.
  static std::string missing_text(const Node& overlay, const Node& child, const Error& error) {
    return fmt::format(
        "{}; 'coldchain rebase -u -b PATH -F {} {}' records its new path{}", error.message,
        child.format.empty() ? "FORMAT" : child.format, to_shell_word(overlay.filename),
        child.name.starts_with('/') ? ", and --sysroot DIR reads absolute names inside DIR" : "");
  }

  void open_backing(const Node& overlay, Node& child, NameSpec& spec) {
    child.format = spec.format.value_or("");
    child.filename = child.name;
    if (!spec.protocol.empty())
      return mark_broken(overlay, child, Code::link_not_local,
                         fmt::format("protocol '{}' is not contacted", to_terminal(spec.protocol)));
    if (is_ambiguous(spec))
      child.findings.push_back({Code::link_relative_json, "read as relative to the overlay"});
    child.filename = spec.path = path_from(overlay, spec);
    if (!policy_.follow)
      return mark_broken(overlay, child, Code::link_not_followed, "--no-follow was given");
    Result<std::unique_ptr<io::File>> file = files_.open(spec.path);
    if (!file && link_code(file.error()) == Code::link_missing && !policy_.moved_backing.empty() &&
        !has_moved_) {
      has_moved_ = true;
      const Result<std::string> moved = files_.name_of(policy_.moved_backing);
      child.filename = spec.path = moved ? *moved : policy_.moved_backing;
      file = moved ? files_.open(*moved) : fail(moved.error());
    }
    if (!file) {
      mark_broken(overlay, child, link_code(file.error()), file.error().message);
      if (link_code(file.error()) == Code::link_missing)
        child.findings.back().detail = missing_text(overlay, child, file.error());
      return;
    }
    if (!note_part((*file)->status().identity, spec))
      return mark_broken(overlay, child, Code::link_loop, "this image is already in the chain");
    child.file = std::move(*file);
    if (!spec.format)
      child.findings.push_back({Code::link_format_not_recorded, "probed"});
    if (const Result<void> opened =
            open_image(child, spec, {ProbeRule::qemu, policy_.test_locks, OpenFor::reading});
        !opened)
      return mark_broken(overlay, child,
                         link_code(opened.error()) == Code::link_locked ? Code::link_locked
                                                                        : Code::link_unreadable,
                         opened.error().message);
    const finding::Findings differences =
        compare_ends({overlay.guest_size(), overlay.file->status().modified},
                     {child.guest_size(), child.file->status().modified});
    child.findings.insert(child.findings.end(), differences.begin(), differences.end());
  }

  // False where the part of a file that a name asks for overlaps one that is in the chain already.
  bool note_part(const io::FileIdentity& file, const NameSpec& spec) {
    const io::Window& window = spec.file_window.is_whole() ? spec.window : spec.file_window;
    constexpr HostOffset last{~std::uint64_t{0}};
    HostRange part{{window.offset}, last};
    if (window.size)
      part.end = {checked_add(window.offset, *window.size).value_or(last.value)};
    const bool is_new = std::none_of(parts_.begin(), parts_.end(), [&](const Part& other) {
      return other.file == file && other.range.begin < part.end && part.begin < other.range.end;
    });
    parts_.push_back({file, part});
    return is_new;
  }

  struct Part {
    io::FileIdentity file;
    HostRange range;
  };

  const io::FileSource& files_;
  const io::OpenPolicy& policy_;
  std::vector<Part> parts_;  // of files, that are in the chain
  bool has_moved_ = false;   // policy_.moved_backing was used
};

}  // namespace

std::vector<const Node*> chain_of(const Node& top) {
  std::vector<const Node*> nodes;
  for (const Node* node = &top; node != nullptr; node = node->backing())
    nodes.push_back(node);
  return nodes;
}

Result<std::unique_ptr<Node>> open(const io::FileSource& files, const io::OpenPolicy& policy,
                                   const OpenRequest& request) {
  return Opener(files, policy).open_top(request);
}

Result<std::unique_ptr<Node>> open_spec(const io::FileSource& files, const io::OpenPolicy& policy,
                                        NameSpec spec, const OpenRequest& request) {
  return Opener(files, policy).open_top(std::move(spec), request);
}

Result<std::unique_ptr<Node>> open_chain_of(const io::FileSource& files,
                                            const io::OpenPolicy& policy,
                                            std::unique_ptr<io::File> file,
                                            const std::string& path) {
  return Opener(files, policy).open_chain_of(std::move(file), path);
}

Result<std::unique_ptr<Node>> open_file(std::unique_ptr<io::File> file, const std::string& path,
                                        const std::string& format) {
  return Opener::open_file(std::move(file), path, format);
}

}  // namespace coldchain::graph
