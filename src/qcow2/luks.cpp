// SPDX-License-Identifier: MIT
#include <string_view>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/luks.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::qcow2 {

namespace {

constexpr std::string_view luks_magic = "LUKS\xba\xbe";
constexpr std::uint32_t slot_enabled = 0x00ac71f3;

template <std::size_t size>
std::string text(const std::byte (&field)[size]) {
  const std::string all = to_string(ByteView(field));
  return all.substr(0, all.find('\0'));
}

}  // namespace

bool finds_luks_header(const Header& header) {
  const Extension* found = header.find_extension(extension::encryption_header);
  const auto pointer =
      found == nullptr ? std::nullopt : load<wire::EncryptionHeaderPointer>(found->data, 0);
  return pointer && is_aligned(pointer->offset.get(), header.cluster_size()) &&
         pointer->length.get() >= sizeof(wire::LuksHeader);
}

Result<LuksInfo> read_luks(const io::File& file, const Header& header) {
  const Extension* found = header.find_extension(extension::encryption_header);
  const auto pointer =
      found == nullptr ? std::nullopt : load<wire::EncryptionHeaderPointer>(found->data, 0);
  if (!pointer)
    return fail(ErrorCode::corrupt, "Missing CRYPTO header for crypt method 2");
  if (!is_aligned(pointer->offset.get(), header.cluster_size()))
    return fail(ErrorCode::corrupt,
                fmt::format("encryption header offset {:#x} is not aligned to a "
                            "cluster",
                            pointer->offset.get()));
  if (pointer->length.get() < sizeof(wire::LuksHeader))
    return fail(ErrorCode::corrupt, fmt::format("the LUKS header has {} bytes, not {}",
                                                pointer->length.get(), sizeof(wire::LuksHeader)));
  Bytes bytes(sizeof(wire::LuksHeader));
  TRY(io::read_exactly(file, {pointer->offset.get()}, bytes, "LUKS header"));
  const auto luks = load<wire::LuksHeader>(bytes, 0);
  if (to_string(ByteView(luks->magic)) != luks_magic || luks->version.get() != 1)
    return fail(ErrorCode::corrupt, "the encryption header is not LUKS version 1");

  LuksInfo info;
  // "xts-plain64" or "cbc-essiv:sha256": mode, IV generator and the generator's hash.
  const std::string mode = text(luks->cipher_mode);
  const std::size_t dash = mode.find('-');
  info.cipher_mode = mode.substr(0, dash);
  const std::string ivgen = dash == std::string::npos ? "" : mode.substr(dash + 1);
  const std::size_t colon = ivgen.find(':');
  info.ivgen_alg = ivgen.substr(0, colon);
  info.ivgen_hash_alg = colon == std::string::npos ? "" : ivgen.substr(colon + 1);
  // XTS uses two keys of the cipher's own size.
  const std::uint64_t key_bits =
      std::uint64_t{luks->key_bytes.get()} * 8 / (info.cipher_mode == "xts" ? 2 : 1);
  info.cipher_alg = fmt::format("{}-{}", text(luks->cipher_name), key_bits);
  info.hash_alg = text(luks->hash_spec);
  info.uuid = text(luks->uuid);
  info.payload_offset = std::uint64_t{luks->payload_offset.get()} * 512;
  info.master_key_iterations = luks->mk_digest_iterations.get();
  for (std::size_t i = 0; i < info.slots.size(); ++i) {
    const wire::LuksKeySlot& slot = luks->key_slots[i];
    info.slots[i] = {slot.active.get() == slot_enabled, slot.iterations.get(), slot.stripes.get(),
                     std::uint64_t{slot.key_material_offset.get()} * 512};
  }
  return info;
}

}  // namespace coldchain::qcow2
