// SPDX-License-Identifier: MIT
// The disks of a machine as its libvirt XML defines them: a <domain>, or a lone <disk>. Where the
// XML names the backing files, they stand above what the images record, as in libvirt since 5.10.
// An empty <backingStore/> ends the chain. The XML may come from anybody: entities are not
// expanded, and size, disks and layers are bounded.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::graph {

// A file of a disk.
struct DomainSource {
  std::string type;    // "file", "block", "volume", "network", …
  std::string format;  // as libvirt reads it: raw where the XML gives none
  std::string path;    // of "file" and "block"
  std::string pool;    // of "volume"
  std::string volume;
  std::string protocol;                // if the type is "network"
  io::Window window;                   // <slices>, of a raw image
  std::string data_path;               // the external data file; empty: the XML names none
  std::optional<std::uint32_t> index;  // index=, as in the XML of a running machine
  std::optional<std::uint32_t> node;   // node='[4]', on <driver> or <backingStore>
};

struct DomainDisk {
  std::string target;                // "vda"
  std::string alias;                 // "virtio-disk0"; empty in the definition of a stopped machine
  std::string device;                // "disk", "cdrom", …
  std::vector<DomainSource> layers;  // the top first; empty: no medium
  bool ends_chain = false;           // the last layer has an empty <backingStore/>
};

// Limits: 16 MiB of text, 1,024 disks, and as many layers as a chain may have.
constexpr std::size_t max_xml_bytes = 16 << 20;
constexpr std::size_t max_disks = 1024;

// In the order of the XML. Errors: invalid_argument (no XML, no domain or disk, above a limit).
[[nodiscard]] Result<std::vector<DomainDisk>> parse_domain(std::string_view xml);

// What open_spec() takes for the disk. `pools`: the folder of each storage pool, by its name.
// Errors: unsupported (a source that is no local file, a pool without a folder), not_found (no
// medium).
[[nodiscard]] Result<NameSpec> spec_of(const DomainDisk& disk,
                                       const std::map<std::string, std::string>& pools);

// Adds a finding to each layer of the opened disk that its image records differently: the backing
// file, or its format.
void compare_with_headers(const io::FileSource& files, Node& top);

}  // namespace coldchain::graph
