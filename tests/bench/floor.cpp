// SPDX-License-Identifier: MIT
// The least that a map or a check can cost: every L1 and L2 table of a chain is read once, for a
// check the refcount blocks too, and for a map a text that was made before is copied to stdout. The
// benchmarks print how far coldchain is from it.
#include <cstdio>
#include <fstream>

#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <unistd.h>

namespace {

using namespace coldchain;

bool read_tables(const graph::Chain& chain) {
  Bytes table;
  for (const graph::Layer& layer : chain.layers()) {
    if (!layer.mapping)
      continue;
    table.resize(layer.mapping->geometry().cluster_size());
    for (const be64& raw : layer.mapping->l1()) {
      const qcow2::L1Entry entry(raw.get());
      if (entry.has_l2_table() && !layer.qcow2().file().read_at(entry.l2_table(), table))
        return false;
    }
  }
  return true;
}

bool read_refcounts(const qcow2::Image& image) {
  const qcow2::Header& header = image.header();
  std::vector<be64> table(header.refcount_table_clusters * header.cluster_size() / sizeof(be64));
  Bytes block(header.cluster_size());
  if (!image.file().read_at({header.refcount_table_offset}, writable_bytes_of(table)))
    return false;
  for (const be64& raw : table) {
    const std::uint64_t offset = raw.get() & qcow2::refcount_block_mask;
    if (offset != 0 && !image.file().read_at({offset}, block))
      return false;
  }
  return true;
}

bool copy_text(const char* path) {
  std::ifstream text(path, std::ios::binary);
  Bytes buffer(256 * 1024);
  while (text.read(reinterpret_cast<char*>(buffer.data()),
                   static_cast<std::streamsize>(buffer.size())),
         text.gcount() > 0) {
    if (::write(STDOUT_FILENO, buffer.data(), static_cast<std::size_t>(text.gcount())) < 0)
      return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fputs("usage: floor IMAGE [TEXT]\nWithout TEXT the floor of a check.\n", stderr);
    return 1;
  }
  const auto files = io::system_files({});
  graph::OpenRequest request;
  request.name = argv[1];
  const auto top = graph::open(**files, {}, request);
  if (!top)
    return 1;
  const auto chain = graph::Chain::make(**top);
  const bool done = chain && read_tables(*chain) &&
                    (argc == 3 ? copy_text(argv[2]) : read_refcounts(*(*top)->qcow2_image()));
  return done ? 0 : 1;
}
