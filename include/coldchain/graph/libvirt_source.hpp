// SPDX-License-Identifier: MIT
// Reads the name of a backing file as libvirt 9.0 does: as a local path, or as a source on the
// network. QEMU reads some names in another way: 'file:' is no protocol to libvirt, and of json:
// names libvirt knows the raw format and the protocols only. Nothing is opened.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <coldchain/io/window_file.hpp>

namespace coldchain::graph {

struct LibvirtSource {
  // A local file: the literal join of the overlay's folder and the name. Otherwise: the name.
  std::string path;
  bool is_local = false;
  std::string protocol{};  // of a source on the network; empty where libvirt cannot read the name
  std::string export_name{};
  std::string host{};
  std::string port{};
  std::string socket{};  // the path of a Unix socket
  io::Window window{};   // of a raw file: libvirt's slice
};

[[nodiscard]] LibvirtSource libvirt_source(std::string_view overlay_path, std::string_view name);

}  // namespace coldchain::graph
