// SPDX-License-Identifier: MIT
// The meaning of a name: a plain path, `file:`, `json:{…}` nested or dotted, `--image-opts`, or a
// protocol that is never contacted. Names are bytes. A name from inside an image may reach less
// than a name that the user typed, because any user who can write the image controls it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <coldchain/base/result.hpp>
#include <coldchain/io/window_file.hpp>

namespace coldchain::graph {

// What a name asks for.
struct NameSpec {
  std::string path;      // of a local file, as written; empty where `protocol` is set
  std::string protocol;  // "nbd", "http", …: a node that is not opened
  // The options of a protocol in a json: name, as text; a nested one is "server.0.host".
  std::map<std::string, std::string> protocol_options{};
  std::optional<std::string> format;  // where the name itself says it ("raw", "qcow2", …)
  bool typed = false;            // by the user, whose relative paths start at the current directory
  bool is_filename = false;      // a plain path or file:, so that QEMU's probe sees a name
  bool from_options = false;     // json:, file: or --image-opts: QEMU resolves a relative path
                                 // against its current directory, not the overlay's
  io::Window window;             // of a format that is raw
  io::Window file_window;        // of the raw driver that the format lies over
  bool without_backing = false;  // "backing": null
  std::unique_ptr<NameSpec> backing;
  std::unique_ptr<NameSpec> data_file;
};

// Whether QEMU takes the part before the first ':' as a protocol.
[[nodiscard]] bool has_protocol(std::string_view name);

// Of a file that was found, not named: whatever is in it, it has no protocol.
[[nodiscard]] NameSpec plain_path(std::string path);

[[nodiscard]] Result<NameSpec> parse_name(std::string_view name);

// "driver=qcow2,file.filename=a.qcow2": QEMU's key=value form, a comma doubled to be literal.
[[nodiscard]] Result<NameSpec> parse_image_opts(std::string_view options);

// A relative path is relative to the directory of the overlay as it was given: symbolic links are
// not resolved, nothing is normalised.
[[nodiscard]] std::string resolve_path(std::string_view overlay_path, std::string_view name);

}  // namespace coldchain::graph
