// SPDX-License-Identifier: MIT
#include <new>

#include <coldchain/base/endian.hpp>
#include <coldchain/codec/digest.hpp>

#include <fmt/format.h>
#include <openssl/evp.h>

namespace coldchain::codec {

namespace {

EVP_MD_CTX* context_of(void* context) {
  return static_cast<EVP_MD_CTX*>(context);
}

// Only memory can be missing.
void check(int succeeded) {
  if (succeeded != 1)
    throw std::bad_alloc();
}

}  // namespace

std::string to_hex(const Digest& digest) {
  std::string text;
  for (const std::byte byte : digest)
    text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

void Sha256::Free::operator()(void* context) const {
  EVP_MD_CTX_free(context_of(context));
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  check(context_ ? 1 : 0);
  check(EVP_DigestInit_ex(context_of(context_.get()), EVP_sha256(), nullptr));
}

void Sha256::update(ByteView bytes) {
  check(EVP_DigestUpdate(context_of(context_.get()), bytes.data(), bytes.size()));
}

void Sha256::update(std::uint64_t number) {
  update(bytes_of(be64(number)));
}

void Sha256::update_text(std::string_view text) {
  update(std::uint64_t{text.size()});
  update(text_bytes(text));
}

Digest Sha256::finish() {
  Digest digest{};
  check(EVP_DigestFinal_ex(context_of(context_.get()),
                           static_cast<unsigned char*>(static_cast<void*>(digest.data())),
                           nullptr));
  return digest;
}

}  // namespace coldchain::codec
