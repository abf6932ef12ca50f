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

void set_buffers(z_stream& stream, ByteView input, ByteSpan output) {
  // zlib's interface is older than const.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
}

// zlib hands out what it has decoded even if the stream does not end, libdeflate does not.
Result<void> inflate_with_zlib(ByteView input, ByteSpan output) {
  z_stream stream = {};
  if (::inflateInit2(&stream, -15) != Z_OK)
    return fail(ErrorCode::io_error, "no memory for the deflate decoder");
  set_buffers(stream, input, output);
  const int status = ::inflate(&stream, Z_FINISH);
  const bool filled = stream.avail_out == 0;
  ::inflateEnd(&stream);
  if (status == Z_MEM_ERROR)
    return fail(ErrorCode::io_error, "no memory for the deflate decoder");
  if (!filled || (status != Z_STREAM_END && status != Z_BUF_ERROR))
    return fail(ErrorCode::corrupt, "the deflate stream does not yield a whole cluster");
  return {};
}

class Deflater {
 public:
  Deflater() {
    constexpr int window_bits = 12;
    constexpr int most_memory = 9;
    is_ready_ = ::deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -window_bits,
                               most_memory, Z_DEFAULT_STRATEGY) == Z_OK;
  }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;
  ~Deflater() { ::deflateEnd(&stream_); }

  [[nodiscard]] Result<std::size_t> deflate(ByteView input, ByteSpan output) {
    if (!is_ready_ || ::deflateReset(&stream_) != Z_OK)
      return fail(ErrorCode::io_error, "no memory for the deflate encoder");
    set_buffers(stream_, input, output);
    return ::deflate(&stream_, Z_FINISH) == Z_STREAM_END ? output.size() - stream_.avail_out : 0;
  }

 private:
  z_stream stream_ = {};
  bool is_ready_ = false;
};

}  // namespace

Result<std::size_t> deflate(ByteView input, ByteSpan output) {
  thread_local Deflater deflater;
  return deflater.deflate(input, output);
}

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
  return inflate_with_zlib(input, output);
}

}  // namespace coldchain::codec
