// SPDX-License-Identifier: MIT
#include <memory>

#include <coldchain/codec/codec.hpp>

#include <libdeflate.h>
#include <zlib.h>

namespace coldchain::codec {

namespace {

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* decompressor) const {
    libdeflate_free_decompressor(decompressor);
  }
};

// zlib hands out what it has decoded even if the stream does not end, libdeflate does not.
bool inflate_with_zlib(ByteView input, ByteSpan output) {
  z_stream stream = {};
  if (::inflateInit2(&stream, -15) != Z_OK)
    return false;
  // zlib's interface is older than const.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  const int status = ::inflate(&stream, Z_FINISH);
  const bool filled = stream.avail_out == 0;
  ::inflateEnd(&stream);
  return filled && (status == Z_STREAM_END || status == Z_BUF_ERROR);
}

}  // namespace

Result<void> inflate(ByteView input, ByteSpan output) {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeDecompressor> decompressor(
      libdeflate_alloc_decompressor());
  if (decompressor) {
    std::size_t produced = 0;
    const libdeflate_result result = libdeflate_deflate_decompress(
        decompressor.get(), input.data(), input.size(), output.data(), output.size(), &produced);
    if (result == LIBDEFLATE_SUCCESS && produced == output.size())
      return {};
  }
  if (inflate_with_zlib(input, output))
    return {};
  return fail(ErrorCode::corrupt, "the deflate stream does not yield a whole cluster");
}

}  // namespace coldchain::codec
