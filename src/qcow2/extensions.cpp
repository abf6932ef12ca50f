// SPDX-License-Identifier: MIT
#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

template <class... Arguments>
tl::unexpected<Error> refuse(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  return fail(ErrorCode::corrupt, fmt::format(text, std::forward<Arguments>(arguments)...));
}

// QEMU block/qcow2.c, qcow2_read_extensions().
Result<void> check_encryption_header(const Extension& extension, const Header& header) {
  if (header.crypt_method != static_cast<std::uint32_t>(CryptMethod::luks))
    return refuse("encryption header extension, but crypt_method is {}, not 2 (LUKS)",
                  header.crypt_method);
  const auto pointer = load<wire::EncryptionHeaderPointer>(extension.data, 0);
  if (!pointer || extension.data.size() != sizeof(wire::EncryptionHeaderPointer))
    return refuse("encryption header extension of {} bytes, not {}", extension.data.size(),
                  sizeof(wire::EncryptionHeaderPointer));
  if (!is_aligned(pointer->offset.get(), header.cluster_size()))
    return refuse("encryption header offset {:#x} is not aligned to a cluster",
                  pointer->offset.get());
  return {};
}

}  // namespace

Result<wire::BitmapsExtension> decode_bitmaps_extension(const Extension& extension,
                                                        const Header& header) {
  const auto fields = load<wire::BitmapsExtension>(extension.data, 0);
  if (!fields || extension.data.size() != sizeof(wire::BitmapsExtension))
    return refuse("bitmaps extension of {} bytes, not {}", extension.data.size(),
                  sizeof(wire::BitmapsExtension));
  if ((header.autoclear_features & autoclear::bitmaps) == 0)
    return *fields;
  const std::uint32_t count = fields->nb_bitmaps.get();
  if (fields->reserved.get() != 0)
    return refuse("bitmaps extension: the reserved field is {:#x}, not 0", fields->reserved.get());
  if (count == 0 || count > limits::max_bitmaps)
    return refuse("bitmaps extension: nb_bitmaps is {}, not 1 to {}", count, limits::max_bitmaps);
  if (!is_aligned(fields->bitmap_directory_offset.get(), header.cluster_size()))
    return refuse("bitmap directory offset {:#x} is not aligned to a cluster",
                  fields->bitmap_directory_offset.get());
  if (fields->bitmap_directory_size.get() > limits::max_bitmap_directory_bytes)
    return refuse("bitmaps extension: bitmap_directory_size is {}, at most {} are allowed",
                  fields->bitmap_directory_size.get(), limits::max_bitmap_directory_bytes);
  return *fields;
}

Result<void> check_extensions(const Header& header) {
  for (const Extension& extension : header.extensions) {
    if (extension.type == extension::encryption_header)
      TRY(check_encryption_header(extension, header));
    else if (extension.type == extension::bitmaps)
      TRY(decode_bitmaps_extension(extension, header));
  }
  return {};
}

}  // namespace coldchain::qcow2
