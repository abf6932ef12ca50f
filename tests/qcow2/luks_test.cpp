// SPDX-License-Identifier: MIT
#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/luks.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

namespace {

void set_text(std::byte* field, std::string_view text) {
  std::copy(text_bytes(text).begin(), text_bytes(text).end(), field);
}

wire::LuksHeader some_luks() {
  wire::LuksHeader luks{};
  set_text(luks.magic, "LUKS\xba\xbe");
  luks.version = 1;
  set_text(luks.cipher_name, "aes");
  set_text(luks.cipher_mode, "xts-plain64");
  set_text(luks.hash_spec, "sha256");
  set_text(luks.uuid, "1cc9c0f2");
  luks.key_bytes = 64;
  luks.payload_offset = 4040;
  luks.mk_digest_iterations = 1000;
  luks.key_slots[0].active = 0x00ac71f3;
  luks.key_slots[0].key_material_offset = 8;
  luks.key_slots[0].stripes = 4000;
  return luks;
}

Header header_pointing_at(std::uint64_t offset, std::uint64_t length = 4096) {
  Header header;
  header.crypt_method = 2;
  wire::EncryptionHeaderPointer pointer;
  pointer.offset = offset;
  pointer.length = length;
  const ByteView bytes = bytes_of(pointer);
  header.extensions.push_back(
      {extension::encryption_header, Bytes(bytes.begin(), bytes.end()), {}});
  return header;
}

}  // namespace

TEST_CASE("read_luks: names the cipher as QEMU does and counts bytes") {
  Bytes content(65536);
  append(content, some_luks());
  const io::MemoryFile file(content);
  const LuksInfo info = read_luks(file, header_pointing_at(65536)).value();
  CHECK(info.cipher_alg == "aes-256");
  CHECK(info.cipher_mode == "xts");
  CHECK(info.ivgen_alg == "plain64");
  CHECK(info.ivgen_hash_alg.empty());
  CHECK(info.payload_offset == 2068480);
  CHECK(info.slots[0].active);
  CHECK(info.slots[0].key_offset == 4096);
  CHECK_FALSE(info.slots[1].active);
}

TEST_CASE("read_luks: a pointer that is missing, unaligned or leads out of the file is an error") {
  const io::MemoryFile file(Bytes(65536));
  CHECK_FALSE(read_luks(file, Header{}));
  CHECK_FALSE(read_luks(file, header_pointing_at(512)));
  CHECK_FALSE(read_luks(file, header_pointing_at(65536)));
  CHECK_FALSE(read_luks(file, header_pointing_at(0)));
}

TEST_CASE("read_luks: a length in which no LUKS header fits is an error") {
  Bytes content(65536);
  append(content, some_luks());
  const io::MemoryFile file(content);
  for (const std::uint64_t length : {0U, 1U, 0x200U, 591U})
    CHECK_FALSE(read_luks(file, header_pointing_at(65536, length)));
  CHECK(read_luks(file, header_pointing_at(65536, 592)));
}
