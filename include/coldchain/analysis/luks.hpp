// SPDX-License-Identifier: MIT
// A raw file that holds a LUKS header: an encrypted disk, of which libvirt shows the part behind
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <coldchain/graph/node.hpp>

namespace coldchain::analysis {

struct LuksFacts {
  std::string format;         // "luks" or "luks2", as libvirt calls them
  std::uint64_t payload = 0;  // bytes before the encrypted data; of LUKS2, not known: 0
};

// Nothing if the node is not raw, or has no such header.
[[nodiscard]] std::optional<LuksFacts> luks_facts_of(const graph::Node& node);

}  // namespace coldchain::analysis
