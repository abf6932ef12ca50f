// SPDX-License-Identifier: MIT
#include <initializer_list>
#include <map>

#include <coldchain/graph/libvirt_source.hpp>
#include <coldchain/graph/name.hpp>

namespace coldchain::graph {

namespace {

// What lies before the first `mark`, which is taken off `text` with it; all of it without one.
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

// PROTOCOL[+TRANSPORT]://[USER@]HOST[:PORT]/NAME[?socket=PATH]
void read_uri(LibvirtSource& source, std::string_view name) {
  std::string_view scheme = take_until(name, "://");
  source.protocol = take_until(scheme, "+");
  std::string_view address = take_until(name, "/");
  if (const std::size_t user = address.rfind('@'); user != std::string_view::npos)
    address.remove_prefix(user + 1);
  set_host(source, address);
  const bool keeps_query = source.protocol.starts_with("http");
  source.export_name = keeps_query ? name : take_until(name, "?");
  constexpr std::string_view socket = "socket=";
  if (const std::size_t at = name.find(socket); !keeps_query && at != std::string_view::npos)
    source.socket = name.substr(at + socket.size(), name.find('&', at) - at - socket.size());
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
  source.export_name = first_of({"export", "volume", "image", "path"});
  source.host = first_of({"server.host", "server.0.host", "host"});
  source.port = first_of({"server.port", "server.0.port", "port"});
  source.socket = first_of({"server.path", "server.socket", "server.0.path"});
}

// Of the drivers of formats, libvirt knows that of raw.
void read_json(LibvirtSource& source, std::string_view name) {
  const Result<NameSpec> spec = parse_name(name);
  if (!spec)
    return;
  if (!spec->protocol.empty()) {
    read_options(source, spec->protocol_options);
    source.protocol = spec->protocol;
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
