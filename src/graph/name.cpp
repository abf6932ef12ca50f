// SPDX-License-Identifier: MIT
#include "json_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/name.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace coldchain::graph {

namespace {

using nlohmann::json;

// Deep enough for a format over a protocol with its backing and data file; beyond is nonsense.
constexpr int max_depth = 8;

template <std::size_t n>
bool contains(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_file_driver(std::string_view driver) {
  return driver == "file" || driver == "host_device";
}

bool is_protocol_driver(std::string_view driver) {
  constexpr std::array<std::string_view, 16> drivers = {
      "nbd", "http", "https",    "ftp",  "ftps", "tftp", "gluster",    "iscsi",
      "rbd", "ssh",  "sheepdog", "vxhs", "nfs",  "nvme", "host_cdrom", "null-co"};
  return contains(drivers, driver);
}

// Options that change how a file is accessed, but neither which file nor what it means.
bool is_harmless_option(std::string_view key) {
  constexpr std::array<std::string_view, 20> keys = {"l2-cache-size",
                                                     "l2-cache-entry-size",
                                                     "refcount-cache-size",
                                                     "cache-size",
                                                     "cache-clean-interval",
                                                     "overlap-check",
                                                     "pass-discard-request",
                                                     "node-name",
                                                     "read-only",
                                                     "auto-read-only",
                                                     "cache",
                                                     "discard",
                                                     "aio",
                                                     "locking",
                                                     "detect-zeroes",
                                                     "force-share",
                                                     "lazy-refcounts",
                                                     "drop-cache",
                                                     "pr-manager",
                                                     "x-check-cache-dropped"};
  return contains(keys, key);
}

// {"file.filename": x} becomes {"file": {"filename": x}}. Contradictions are errors.
Result<json> nest(const json& flat, int depth) {
  if (depth > max_depth)
    return fail(ErrorCode::invalid_argument, "nested too deeply");
  json nested = json::object();
  for (const auto& [dotted, value] : flat.items()) {
    json* place = &nested;
    std::string_view rest = dotted;
    for (std::size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
      json& next = (*place)[std::string(rest.substr(0, dot))];
      if (!next.is_null() && !next.is_object())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is given twice", to_terminal(dotted)));
      place = &next;
      rest.remove_prefix(dot + 1);
    }
    json& target = (*place)[std::string(rest)];
    json content = value.is_object() ? TRY(nest(value, depth + 1)) : value;
    if (target.is_object() && content.is_object())
      target.update(content);
    else if (target.is_null())
      target = std::move(content);
    else
      return fail(ErrorCode::invalid_argument,
                  fmt::format("'{}' is given twice", to_terminal(dotted)));
  }
  return nested;
}

std::optional<std::uint64_t> to_number(const json& value) {
  if (value.is_number_unsigned())
    return value.get<std::uint64_t>();
  if (!value.is_string())
    return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return number;
}

// What options may stand for without saying so.
enum class Place {
  image,  // of which a driver or a file is given
  file,   // which may be given by its name alone
};

Result<NameSpec> interpret(const json& options, Place place, int depth);

Result<std::unique_ptr<NameSpec>> interpret_child(const json& options, std::string_view key,
                                                  Place place, int depth) {
  if (!options.is_object())
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is a reference to another node; give its options instead", key));
  return std::make_unique<NameSpec>(TRY(interpret(options, place, depth + 1)));
}

// {"driver": "file", "filename": path}, the driver optional. As with QEMU, an option's path has no
// protocol in it: "nbd:x" is a file of that name.
Result<NameSpec> interpret_file(const json& options) {
  NameSpec spec;
  spec.from_options = true;
  for (const auto& [key, value] : options.items()) {
    if (key == "driver" || is_harmless_option(key))
      continue;
    if (key != "filename" || !value.is_string())
      return fail(ErrorCode::invalid_argument,
                  fmt::format("option '{}' of a file is not known", to_terminal(key)));
    spec.path = value.get<std::string>();
  }
  if (spec.path.empty())
    return fail(ErrorCode::invalid_argument, "'filename' is missing");
  // An explicit driver means the file's bytes as they are, unless a format is laid over it.
  if (options.contains("driver"))
    spec.format = options["driver"].get<std::string>();
  return spec;
}

Result<void> interpret_format_option(NameSpec& spec, const std::string& key, const json& value,
                                     int depth) {
  const std::string driver = spec.format.value_or("");
  if (driver == "raw" && (key == "offset" || key == "size")) {
    const auto number = to_number(value);
    if (!number)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("'{}' is not a number of bytes", to_terminal(key)));
    if (key == "offset")
      spec.window.offset = *number;
    else
      spec.window.size = *number;
    return {};
  }
  if (key == "backing" && driver != "raw") {
    spec.without_backing = value.is_null() || value == json("");
    if (!spec.without_backing)
      spec.backing = TRY(interpret_child(value, key, Place::image, depth));
    return {};
  }
  if (key == "data-file" && driver != "raw") {
    spec.data_file = TRY(interpret_child(value, key, Place::file, depth));
    return {};
  }
  return fail(ErrorCode::invalid_argument,
              fmt::format("option '{}' is not known", to_terminal(key)));
}

// One window that is what `inner` is within `outer`.
Result<io::Window> within(const io::Window& outer, const io::Window& inner) {
  io::Window window = inner;
  const auto offset = checked_add(outer.offset, inner.offset);
  const std::uint64_t most = outer.size.value_or(~std::uint64_t{0});
  if (!offset || inner.offset > most || inner.size.value_or(0) > most - inner.offset)
    return fail(ErrorCode::invalid_argument, "a window does not lie within the one below it");
  window.offset = *offset;
  if (outer.size && !inner.size)
    window.size = *outer.size - inner.offset;
  return window;
}

// {"driver": "qcow2", "file": {…}, …}; without a driver the format is probed.
Result<NameSpec> interpret_format(const json& options, int depth) {
  const json& file = options["file"];
  const auto child = TRY(interpret_child(file, "file", Place::file, depth));
  NameSpec spec = std::move(*child);
  if (spec.format && *spec.format != "raw" && !is_file_driver(*spec.format))
    return fail(ErrorCode::invalid_argument, "a format over another format is not read");
  spec.format.reset();  // that was the layer below
  spec.file_window = TRY(within(spec.file_window, std::exchange(spec.window, {})));
  spec.from_options = true;
  if (options.contains("driver"))
    spec.format = options["driver"].get<std::string>();
  for (const auto& [key, value] : options.items()) {
    if (key != "driver" && key != "file" && !is_harmless_option(key))
      TRY(interpret_format_option(spec, key, value, depth));
  }
  if (spec.format == "raw")
    spec.window = TRY(within(std::exchange(spec.file_window, {}), spec.window));
  return spec;
}

// The names are nested no deeper than nest() allows.
void note_options(const json& options, const std::string& prefix,
                  std::map<std::string, std::string>& noted) {
  for (const auto& [key, value] : options.items()) {  // an array has its indices as keys
    if (value.is_structured())
      note_options(value, prefix + key + ".", noted);
    else if (value.is_string())
      noted[prefix + key] = value.get<std::string>();
    else if (value.is_number_unsigned())
      noted[prefix + key] = std::to_string(value.get<std::uint64_t>());
  }
}

Result<NameSpec> interpret(const json& options, Place place, int depth) {
  if (depth > max_depth)
    return fail(ErrorCode::invalid_argument, "nested too deeply");
  if (options.contains("driver") && !options["driver"].is_string())
    return fail(ErrorCode::invalid_argument, "'driver' is not a string");
  const std::string driver = options.value("driver", "");
  if (is_protocol_driver(driver)) {
    NameSpec spec;
    spec.protocol = driver;
    note_options(options, "", spec.protocol_options);
    return spec;
  }
  const bool is_named_file = place == Place::file && options.contains("filename");
  if (is_file_driver(driver) || (driver.empty() && is_named_file))
    return interpret_file(options);
  // QEMU block.c, bdrv_open_inherit(): a file without a driver is one by its name.
  const bool is_nothing = driver.empty() && (place == Place::file || !options.contains("file"));
  if (is_nothing)
    return fail(ErrorCode::invalid_argument, "Must specify either driver or file");
  if (!driver.empty() && driver != "raw" && driver != "qcow2") {
    const bool quorum = driver == "quorum";
    return fail(ErrorCode::unsupported, fmt::format("driver '{}' is not {}", to_terminal(driver),
                                                    quorum ? "read by this version" : "allowed"));
  }
  if (!options.contains("file"))
    return fail(ErrorCode::invalid_argument, "'file' is missing");
  return interpret_format(options, depth);
}

Result<NameSpec> parse_json(std::string_view text) {
  const json parsed = TRY(parse_json_text(text));
  Result<json> nested = nest(parsed, 0);
  if (!nested)
    return fail(with_context(nested.error(), "json"));
  Result<NameSpec> spec = interpret(*nested, Place::image, 0);
  return spec ? std::move(spec) : fail(with_context(spec.error(), "json"));
}

}  // namespace

bool has_protocol(std::string_view name) {
  const std::size_t first = name.find_first_of(":/");
  return first != std::string_view::npos && name[first] == ':';
}

NameSpec plain_path(std::string path) {
  NameSpec spec;
  spec.path = std::move(path);
  spec.is_filename = true;
  return spec;
}

Result<NameSpec> parse_name(std::string_view name) {
  NameSpec spec;
  if (name.starts_with(':'))
    return fail(ErrorCode::invalid_argument, "Unknown protocol ''");
  if (name.starts_with("json:"))
    return parse_json(name.substr(5));
  if (name.starts_with("file:")) {
    spec.path = name.substr(5);
    spec.is_filename = true;
    spec.from_options = true;
  } else if (has_protocol(name)) {
    spec.protocol = name.substr(0, name.find(':'));
  } else {
    return plain_path(std::string(name));
  }
  return spec;
}

Result<NameSpec> parse_image_opts(std::string_view options) {
  json flat = json::object();
  std::string key;
  std::string value;
  bool in_value = false;
  const auto finish = [&]() -> Result<void> {
    if (key.empty() || !in_value)
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("image options: '{}' is not of the form key=value", to_terminal(key)));
    if (!flat.emplace(key, value).second)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("image options: '{}' is given twice", to_terminal(key)));
    key.clear();
    value.clear();
    in_value = false;
    return {};
  };
  for (std::size_t i = 0; i < options.size(); ++i) {
    const char c = options[i];
    if (!in_value && c == '=') {
      in_value = true;
    } else if (c == ',' && in_value && i + 1 < options.size() && options[i + 1] == ',') {
      value += ',';
      ++i;
    } else if (c == ',') {
      TRY(finish());
    } else {
      (in_value ? value : key) += c;
    }
  }
  TRY(finish());
  Result<json> nested = nest(flat, 0);
  Result<NameSpec> spec = nested ? interpret(*nested, Place::image, 0) : fail(nested.error());
  return spec ? std::move(spec) : fail(with_context(spec.error(), "image options"));
}

std::string resolve_path(std::string_view overlay_path, std::string_view name) {
  const std::size_t slash = overlay_path.rfind('/');
  if (name.starts_with('/') || slash == std::string_view::npos)
    return std::string(name);
  return fmt::format("{}{}", overlay_path.substr(0, slash + 1), name);
}

}  // namespace coldchain::graph
