// SPDX-License-Identifier: MIT
#include <charconv>
#include <initializer_list>
#include <map>

#include <coldchain/graph/libvirt_source.hpp>
#include <coldchain/graph/name.hpp>

namespace coldchain::graph {

namespace {

// Takes the part before the first `mark` off `text`, and the mark with it; without one, all of it.
std::string_view take_until(std::string_view& text, std::string_view mark) {
  const std::size_t end = text.find(mark);
  const std::string_view taken = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view{} : text.substr(end + mark.size());
  return taken;
}

// "HOST", "HOST:PORT", "[ADDRESS]:PORT".
void set_host(LibvirtSource& source, std::string_view text) {
  if (text.starts_with('[')) {
    text.remove_prefix(1);
    source.host = take_until(text, "]");
    (void)take_until(text, ":");
  } else {
    source.host = take_until(text, ":");
  }
  source.port = text;
}

// %41 is A. A '%' without two hexadecimal digits stays.
std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// PROTOCOL[+TRANSPORT]://[USER@]HOST[:PORT]/NAME[?socket=PATH]
void read_uri(LibvirtSource& source, std::string_view name) {
  std::string_view scheme = take_until(name, "://");
  source.protocol = take_until(scheme, "+");
  std::string_view address = take_until(name, "/");
  if (const std::size_t user = address.rfind('@'); user != std::string_view::npos)
    address.remove_prefix(user + 1);
  set_host(source, address);
  const bool keeps_query = source.protocol.starts_with("http");
  source.export_name = decoded(take_until(name, "?"));
  if (keeps_query) {
    if (!name.empty())
      source.export_name.append("?").append(name);
    return;
  }
  while (!name.empty()) {
    std::string_view parameter = take_until(name, "&");
    if (take_until(parameter, "=") == "socket")
      source.socket = decoded(parameter);
  }
}

// nbd:unix:PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME]
void read_nbd(LibvirtSource& source, std::string_view rest) {
  source.protocol = "nbd";
  std::string_view address = take_until(rest, ":exportname=");
  source.export_name = rest;
  if (address.starts_with("unix:"))
    source.socket = address.substr(5);
  else
    set_host(source, address);
}

// The options of QEMU's network drivers, old and new.
void read_options(LibvirtSource& source, const std::map<std::string, std::string>& options) {
  const auto first_of = [&](std::initializer_list<const char*> keys) -> std::string {
    for (const char* key : keys) {
      if (const auto found = options.find(key); found != options.end())
        return found->second;
    }
    return "";
  };
  if (const std::string url = first_of({"url"}); !url.empty()) {
    read_uri(source, url);
    return;
  }
  // The parts of a name that libvirt has in one attribute.
  const std::string container = first_of({"pool", "volume", "target"});
  std::string inside = first_of({"export", "image", "path", "vdi", "lun"});
  if (source.protocol == "iscsi" && inside.empty())
    inside = "0";
  if (!container.empty() && !inside.starts_with('/'))
    inside.insert(0, "/");
  source.export_name = container + inside;
  if (const std::string portal = first_of({"portal"}); !portal.empty()) {
    set_host(source, portal);
  } else {
    source.host = first_of({"server.host", "server.0.host", "host"});
    source.port = first_of({"server.port", "server.0.port", "port"});
  }
  source.socket = first_of({"server.path", "server.socket", "server.0.path", "server.0.socket"});
}

// libvirt knows one driver of formats: raw.
void read_json(LibvirtSource& source, std::string_view name) {
  const Result<NameSpec> spec = parse_name(name);
  if (!spec)
    return;
  if (!spec->protocol.empty()) {
    source.protocol = spec->protocol;
    read_options(source, spec->protocol_options);
  } else if (!spec->format || *spec->format != "qcow2") {
    source.is_local = true;
    source.path = spec->path;
    source.window = spec->window;
  }
}

}  // namespace

LibvirtSource libvirt_source(std::string_view overlay_path, std::string_view name) {
  LibvirtSource source{.path = std::string(name)};
  if (name.starts_with("json:")) {
    read_json(source, name);
  } else if (!has_protocol(name)) {
    source.is_local = true;
    source.path = resolve_path(overlay_path, name);
  } else if (name.find("://") != std::string_view::npos) {
    read_uri(source, name);
  } else if (name.starts_with("nbd:")) {
    read_nbd(source, name.substr(4));
  }
  return source;
}

}  // namespace coldchain::graph
