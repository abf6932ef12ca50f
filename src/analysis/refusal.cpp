// SPDX-License-Identifier: MIT
#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/try.hpp>

namespace coldchain::analysis {

namespace {

using finding::Code;

Result<void> check_bitmaps(const qcow2::Image& image) {
  const auto bitmaps = TRY(qcow2::read_bitmaps(image.file(), image.header()));
  return qcow2::check_bitmaps(image.file(), image.header(), bitmaps);
}

}  // namespace

finding::Findings refusals_of(const qcow2::Image& image) {
  finding::Findings findings;
  const qcow2::Header& header = image.header();
  if (header.unknown_incompatible() != 0)
    return findings;
  if (const Result<void> accepted = check_bitmaps(image); !accepted)
    findings.push_back({Code::image_bitmaps_unreadable, accepted.error().message});
  if (header.crypt_method == static_cast<std::uint32_t>(qcow2::CryptMethod::luks)) {
    if (const auto luks = qcow2::read_luks(image.file(), header); !luks)
      findings.push_back({Code::image_encryption_unreadable, luks.error().message});
  }
  return findings;
}

bool is_refusal(Code code) {
  return code == Code::image_bitmaps_unreadable || code == Code::image_encryption_unreadable;
}

}  // namespace coldchain::analysis
