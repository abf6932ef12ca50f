// SPDX-License-Identifier: MIT
#include <coldchain/codec/checksum.hpp>

#include <libdeflate.h>

namespace coldchain::codec {

std::uint32_t crc32(ByteView bytes, std::uint32_t before) {
  return libdeflate_crc32(before, bytes.data(), bytes.size());
}

}  // namespace coldchain::codec
