// SPDX-License-Identifier: MIT
// Checksums against torn and rotten bytes, not against people.
#pragma once

#include <cstdint>

#include <coldchain/base/bytes.hpp>

namespace coldchain::codec {

// CRC-32 as in zlib; `before` is the checksum of the bytes that come before these.
[[nodiscard]] std::uint32_t crc32(ByteView bytes, std::uint32_t before = 0);

}  // namespace coldchain::codec
