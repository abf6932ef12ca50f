// SPDX-License-Identifier: MIT
#include "damage_extensions.hpp"

#include "damage_samples.hpp"

#include <algorithm>

#include <coldchain/qcow2/wire.hpp>

namespace coldchain::testing {

namespace {

using finding::Code;
using qcow2::Header;

Damage encryption(const std::string& name, std::uint32_t method, std::uint64_t offset,
                  std::size_t bytes, Code code) {
  const auto harm = [=](Patient& p) {
    p.set_header([=](Header& h) {
      h.crypt_method = method;
      Bytes pointer;
      append(pointer, qcow2::wire::EncryptionHeaderPointer{offset, 4096U});
      pointer.resize(bytes);
      h.extensions.push_back({qcow2::extension::encryption_header, pointer, {}});
    });
  };
  return {name, plain(), harm, {code}};
}

// Writes a number into the bitmaps extension.
std::function<void(Patient&)> field(std::size_t offset, std::size_t bytes, std::uint64_t value) {
  return [=](Patient& p) {
    p.set_header([=](Header& h) {
      const be64 number(value);
      const ByteView all = bytes_of(number);
      std::copy(all.end() - static_cast<std::ptrdiff_t>(bytes), all.end(),
                h.extensions.back().data.begin() + static_cast<std::ptrdiff_t>(offset));
    });
  };
}

std::function<void(Patient&)> entry(unsigned offset, unsigned bytes, std::uint64_t value) {
  return [=](Patient& p) { p.set_number(p.bitmap_directory() + offset, bytes, value); };
}

}  // namespace

std::vector<Damage> extension_damages() {
  std::vector<Damage> all = {
      encryption("encryption-header-without-luks", 0, 4096, 16, Code::header_extension_without_use),
      encryption("encryption-header-with-aes", 1, 4096, 16, Code::header_extension_without_use),
      encryption("encryption-header-too-short", 2, 4096, 8, Code::header_extension_length),
      encryption("encryption-header-too-long", 2, 4096, 24, Code::header_extension_length),
      encryption("encryption-header-is-not-luks", 2, 4096, 16, Code::encryption_header_bad),
      encryption("encryption-header-unaligned", 2, 4097, 16, Code::encryption_header_bad)};
  const auto harm = [&](const char* name, std::function<void(Patient&)> change,
                        std::vector<Code> codes) {
    all.push_back({name, with_bitmap(), std::move(change), std::move(codes)});
  };
  harm("bitmaps-none", field(0, 4, 0), {Code::bitmap_directory_bad});
  harm("bitmaps-too-many", field(0, 4, 65536), {Code::bitmap_directory_bad});
  harm("bitmaps-more-than-entries", field(0, 4, 2), {Code::bitmap_directory_bad});
  harm("bitmaps-reserved-field", field(4, 4, 1), {Code::bitmap_directory_bad});
  harm("bitmap-directory-empty", field(8, 8, 0), {Code::bitmap_directory_bad});
  harm("bitmap-directory-cut", field(8, 8, 31), {Code::bitmap_directory_bad});
  harm("bitmap-directory-too-long", field(8, 8, 40), {Code::bitmap_directory_bad});
  harm("bitmap-directory-too-large", field(8, 8, 1024 * 65535 + 1), {Code::bitmap_directory_bad});
  harm("bitmap-directory-unaligned", field(16, 8, 0x10200), {Code::bitmap_directory_bad});
  harm("bitmap-table-at-nothing", entry(0, 8, 0), {Code::bitmap_table_bad});
  harm("bitmap-table-of-no-entries", entry(8, 4, 0), {Code::bitmap_table_bad});
  harm("bitmap-flags-for-extra-data", entry(12, 4, 4), {});
  harm("bitmap-granularity-too-fine", entry(17, 1, 8), {Code::bitmap_directory_bad});
  harm("bitmap-name-empty", entry(18, 2, 0), {Code::bitmap_directory_bad});
  harm("bitmap-extra-data", entry(20, 4, 1), {});
  ImageBuilder two = with_bitmap();
  two.bitmap("second", 0);
  all.push_back({"bitmaps-less-than-entries", two, field(0, 4, 1), {Code::bitmap_directory_bad}});
  // The first entry has 24 bytes and a name of 7, aligned to 8.
  all.push_back({"second-bitmap-table-of-another-size",
                 two,
                 entry(32 + 8, 4, 14),
                 {Code::bitmap_coverage_wrong}});
  all.push_back(
      {"second-bitmap-table-unaligned", two, entry(32, 8, 0x1ff), {Code::bitmap_table_bad}});
  return all;
}

}  // namespace coldchain::testing
