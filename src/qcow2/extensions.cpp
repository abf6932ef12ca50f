// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/geometry.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

// The words are those of QEMU block/qcow2.c, qcow2_read_extensions().
template <class... Arguments>
tl::unexpected<Error> refuse(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  return fail(ErrorCode::corrupt, fmt::format(text, std::forward<Arguments>(arguments)...));
}

Result<void> check_encryption_header(const Extension& extension, const Header& header) {
  if (header.crypt_method != static_cast<std::uint32_t>(CryptMethod::luks))
    return refuse(
        "CRYPTO header extension only expected with LUKS encryption method: crypt_method at "
        "0x20 is {}, not 2",
        header.crypt_method);
  const auto pointer = load<wire::EncryptionHeaderPointer>(extension.data, 0);
  constexpr std::size_t size = sizeof(wire::EncryptionHeaderPointer);
  if (!pointer || extension.data.size() != size)
    return refuse("CRYPTO header extension size {}, but expected size {}", extension.data.size(),
                  size);
  if (!is_aligned(pointer->offset.get(), header.cluster_size()))
    return refuse("Encryption header offset '{}' is not a multiple of cluster size '{}'",
                  pointer->offset.get(), header.cluster_size());
  return {};
}

// Each entry is 48 bytes: the kind, the bit and the name.
std::vector<std::string> names_in_table(const Extension& table, std::uint64_t& bits) {
  constexpr std::size_t most_characters = 46;
  std::vector<std::string> names;
  for (std::size_t at = 0;; at += sizeof(wire::FeatureName)) {
    const auto entry = load<wire::FeatureName>(table.data, at);
    if (!entry || entry->name[0] == std::byte{0})
      return names;
    const auto bit = std::to_integer<unsigned>(entry->bit);
    if (entry->type != std::byte{0} || bit >= 64 || (bits >> bit & 1) == 0)
      continue;
    const std::string name = to_string(ByteView(entry->name));
    names.push_back(name.substr(0, std::min(name.find('\0'), most_characters)));
    bits &= ~(1ULL << bit);
  }
}

}  // namespace

std::string unsupported_features(const Header& header) {
  std::uint64_t bits = header.unknown_incompatible();
  const Extension* table = header.find_extension(extension::feature_name_table);
  std::vector<std::string> names;
  if (table != nullptr)
    names = names_in_table(*table, bits);
  if (bits != 0)
    names.push_back(fmt::format("Unknown incompatible feature: {:x}", bits));
  return fmt::format("Unsupported qcow2 feature(s): {}", fmt::join(names, ", "));
}

Result<wire::BitmapsExtension> decode_bitmaps_extension(const Extension& extension,
                                                        const Header& header) {
  const auto fields = load<wire::BitmapsExtension>(extension.data, 0);
  if (!fields || extension.data.size() != sizeof(wire::BitmapsExtension))
    return refuse("bitmaps_ext: Invalid extension length: {} bytes, not {}", extension.data.size(),
                  sizeof(wire::BitmapsExtension));
  if ((header.autoclear_features & autoclear::bitmaps) == 0)
    return *fields;
  const std::uint32_t count = fields->nb_bitmaps.get();
  if (fields->reserved.get() != 0)
    return refuse("bitmaps_ext: Reserved field is not zero: it is {:#x}", fields->reserved.get());
  if (count > limits::max_bitmaps)
    return refuse("bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of {}",
                  count, limits::max_bitmaps);
  if (count == 0)
    return refuse("found bitmaps extension with zero bitmaps: nb_bitmaps is 0");
  if (!is_aligned(fields->bitmap_directory_offset.get(), header.cluster_size()))
    return refuse("bitmaps_ext: invalid bitmap directory offset: {:#x}, not aligned to a cluster",
                  fields->bitmap_directory_offset.get());
  if (fields->bitmap_directory_size.get() > limits::max_bitmap_directory_bytes)
    return refuse("bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({})",
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
