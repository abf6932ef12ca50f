// SPDX-License-Identifier: MIT
// A machine's XML is read or refused; what is read has no more disks and layers than the limits,
// and each disk has a name to open or an error.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/graph/libvirt_domain.hpp>
#include <coldchain/graph/open.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  const auto disks = graph::parse_domain(to_string(fuzz::to_bytes(data, size)));
  if (!disks)
    return 0;
  if (disks->size() > graph::max_disks)
    std::abort();
  for (const graph::DomainDisk& disk : *disks) {
    if (disk.layers.size() > graph::max_layers)
      std::abort();
    const auto spec = graph::spec_of(disk, {{"p", "/pool"}});
    if (spec && spec->path.empty())
      std::abort();
  }
  return 0;
}
