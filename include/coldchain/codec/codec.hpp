// SPDX-License-Identifier: MIT
// One compressed cluster in, one cluster out. A success means that exactly `output.size()` bytes
// were produced. qcow2.rst, "Header": compression_type.
#pragma once

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::codec {

// Raw deflate (RFC 1951). As QEMU does, a stream is also accepted that fills the output without
// ever ending, and bytes behind the stream are ignored.
[[nodiscard]] Result<void> inflate(ByteView input, ByteSpan output);

// One or more Zstandard frames; the last must end where the output is full.
[[nodiscard]] Result<void> unzstd(ByteView input, ByteSpan output);

}  // namespace coldchain::codec
