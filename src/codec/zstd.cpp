// SPDX-License-Identifier: MIT
#include <memory>

#include <coldchain/codec/codec.hpp>

#include <zstd.h>
#include <zstd_errors.h>

namespace coldchain::codec {

namespace {

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

Result<std::size_t> zstd(ByteView input, ByteSpan output) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  if (!context)
    return fail(ErrorCode::io_error, "no memory for the zstd encoder");
  const std::size_t size =
      ZSTD_compress2(context.get(), output.data(), output.size(), input.data(), input.size());
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall)
    return std::size_t{0};
  if (ZSTD_isError(size) != 0)
    return fail(ErrorCode::io_error, ZSTD_getErrorName(size));
  return size;
}

Result<void> unzstd(ByteView input, ByteSpan output) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  if (!context)
    return fail(ErrorCode::io_error, "no memory for the zstd decoder");
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_only);

  ZSTD_inBuffer in{input.data(), input.size(), 0};
  ZSTD_outBuffer out{output.data(), output.size(), 0};
  std::size_t pending = 0;
  while (out.pos < out.size) {
    const std::size_t in_before = in.pos;
    const std::size_t out_before = out.pos;
    pending = ZSTD_decompressStream(context.get(), &out, &in);
    const bool stuck = in.pos == in_before && out.pos == out_before;
    if (ZSTD_getErrorCode(pending) == ZSTD_error_memory_allocation)
      return fail(ErrorCode::io_error, "no memory for the zstd decoder");
    if (ZSTD_isError(pending) != 0 || stuck)
      return fail(ErrorCode::corrupt, "the zstd stream does not yield a whole cluster");
  }
  if (pending != 0)
    return fail(ErrorCode::corrupt, "the zstd stream yields more than a cluster");
  return {};
}

}  // namespace coldchain::codec
