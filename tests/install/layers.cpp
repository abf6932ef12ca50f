// SPDX-License-Identifier: MIT
// In a shared library: the number of layers of an image, or -1.
#include <coldchain/graph/open.hpp>

extern "C" int count_layers(const char* path) {
  const auto files = coldchain::io::system_files({});
  coldchain::graph::OpenRequest request;
  request.name = path;
  const auto top = coldchain::graph::open(**files, {}, request);
  return top ? static_cast<int>(coldchain::graph::chain_of(**top).size()) : -1;
}
