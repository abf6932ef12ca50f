// SPDX-License-Identifier: MIT
#include "damage.hpp"

#include <coldchain/analysis/refusal.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::analysis;
using finding::Code;

namespace {

finding::Findings refusals(const Bytes& bytes) {
  const io::MemoryFile file(bytes);
  return refusals_of(qcow2::Image::open(file).value());
}

}  // namespace

TEST_CASE("refusals: bitmaps and an encryption header that cannot be read are one each") {
  CHECK(refusals(testing::ImageBuilder(testing::ImageOptions{}).build().flat()).empty());
  CHECK(refusals(testing::damage("bitmap-in-use").image()).empty());
  CHECK(refusals(testing::damage("bitmaps-stale").image()).empty());
  const auto bitmaps = refusals(testing::damage("bitmap-table-unaligned").image());
  REQUIRE(bitmaps.size() == 1);
  CHECK(bitmaps[0].code == Code::image_bitmaps_unreadable);
  CHECK(is_refusal(bitmaps[0].code));
  const auto luks = refusals(testing::damage("luks-without-header").image());
  REQUIRE(luks.size() == 1);
  CHECK(luks[0].code == Code::image_encryption_unreadable);
  CHECK_FALSE(is_refusal(Code::image_snapshots_unreadable));
}
