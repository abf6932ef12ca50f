// SPDX-License-Identifier: MIT
#include <cstdio>

#include <coldchain/graph/open.hpp>

int main(int, char** argv) {
  const auto files = coldchain::io::system_files({});
  coldchain::graph::OpenRequest request;
  request.name = argv[1];
  const auto top = coldchain::graph::open(**files, {}, request);
  if (top)
    std::printf("%zu layers\n", coldchain::graph::chain_of(**top).size());
  return top ? 0 : 1;
}
