// SPDX-License-Identifier: MIT
// Compressed clusters, in and out. qcow2.rst, "Header": compression_type.
#pragma once

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::codec {

// One compressed cluster in, one cluster out: a success means that exactly `output.size()` bytes
// were produced.

// Raw deflate (RFC 1951). As QEMU does, a stream is also accepted that fills the output without
// ever ending, and bytes behind the stream are ignored.
[[nodiscard]] Result<void> inflate(ByteView input, ByteSpan output);

// One or more Zstandard frames; the last must end where the output is full.
[[nodiscard]] Result<void> unzstd(ByteView input, ByteSpan output);

// The other way: how many bytes of `output` the stream takes; 0 where that may not do. The same
// input gives the same stream each time.

// In a window of 4 KiB: QEMU has no larger one.
[[nodiscard]] Result<std::size_t> deflate(ByteView input, ByteSpan output);

// One frame.
[[nodiscard]] Result<std::size_t> zstd(ByteView input, ByteSpan output);

}  // namespace coldchain::codec
