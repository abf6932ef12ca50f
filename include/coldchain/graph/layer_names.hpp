// SPDX-License-Identifier: MIT
// The names of the layers of a machine's disk. TARGET[n] counts positions: 'vda' and 'vda[0]' are
// the top, 'vda[1]' is its backing file. ALIAS[n] is a node, which keeps its number when overlays
// come and go: a node that the XML does not number is numbered in the order of creation, the last
// backing file first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/graph/libvirt_domain.hpp>

namespace coldchain::graph {

struct LayerName {
  std::string position;                // "vda[1]"
  std::string node;                    // "virtio-disk0[0]"; empty: the XML gives no alias
  std::optional<std::uint32_t> index;  // the XML's own index=, where it is not the position
};

// Names the layers of an opened disk, the top first. `layers` is at least one. `renumber` counts
// the nodes from 0 and ignores the numbers of the XML.
[[nodiscard]] std::vector<LayerName> layer_names(const DomainDisk& disk, std::size_t layers,
                                                 bool renumber);

// The index in `names` of the layer that a word names; a position stands above a node. Errors:
// not_found, invalid_argument (two layers have this name).
[[nodiscard]] Result<std::size_t> find_layer(const std::vector<LayerName>& names,
                                             std::string_view word);

// The disk that a word names, or a layer of which it names. A target stands above an alias, which
// needs a number: alone, it is the guest's device. Errors: as above.
[[nodiscard]] Result<std::size_t> find_disk(const std::vector<DomainDisk>& disks,
                                            std::string_view word);

}  // namespace coldchain::graph
