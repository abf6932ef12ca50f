// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/raw/image.hpp>

namespace coldchain::raw {

Result<Image> Image::open(const io::File& file, const io::Window& window) {
  const HostRange range = TRY(io::range_of(window, file));
  if (file.size() > (1ULL << 63) - 512)
    return fail(ErrorCode::too_large, "the file is larger than 2^63 bytes");
  return Image(file, range.begin.value, range.size());
}

Result<void> Image::read(GuestOffset offset, ByteSpan buffer) const {
  const std::size_t inside =
      offset.value >= size_ ? 0 : std::min<std::uint64_t>(buffer.size(), size_ - offset.value);
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(inside), buffer.end(), std::byte{0});
  return io::read_zero_extended(*file_, host_offset(offset), buffer.first(inside));
}

}  // namespace coldchain::raw
