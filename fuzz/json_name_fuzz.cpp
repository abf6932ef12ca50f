// SPDX-License-Identifier: MIT
// A name is understood or refused; what is understood is a path or a protocol, never both, never
// none.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/base/text.hpp>
#include <coldchain/graph/libvirt_source.hpp>
#include <coldchain/graph/name.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  const std::string text = to_string(fuzz::to_bytes(data, size));
  if (!is_valid_utf8(to_terminal(text)))
    std::abort();
  const auto json = graph::parse_name("json:" + text);
  if (json && json->path.empty() == json->protocol.empty())
    std::abort();
  (void)graph::parse_name(text);
  (void)graph::parse_image_opts(text);
  for (const std::string& name : {text, "json:" + text, "nbd:" + text}) {
    const graph::LibvirtSource source = graph::libvirt_source("/folder/overlay", name);
    if (source.is_local && !source.protocol.empty())
      std::abort();
  }
  return 0;
}
