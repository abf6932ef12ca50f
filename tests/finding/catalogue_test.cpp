// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>

#include <coldchain/finding/finding.hpp>

#include <doctest/doctest.h>

using namespace coldchain::finding;

TEST_CASE("catalogue: codes and names are unique and every row is complete") {
  std::set<Code> codes;
  std::set<std::string_view> slugs;
  for (const Row& entry : catalogue()) {
    CHECK(codes.insert(entry.code).second);
    CHECK(slugs.insert(entry.slug).second);
    CHECK_FALSE(entry.meaning.empty());
    CHECK_FALSE(entry.advice.empty());
    CHECK(&row(entry.code) == &entry);
  }
}

// COLDCHAIN_WRITE_DOCUMENTS=1 writes the document instead of comparing it.
TEST_CASE("catalogue: docs/findings.md is what the catalogue generates") {
  if (std::getenv("COLDCHAIN_WRITE_DOCUMENTS") != nullptr)
    std::ofstream(COLDCHAIN_SOURCE_DIR "/docs/findings.md") << catalogue_markdown();
  std::ifstream file(COLDCHAIN_SOURCE_DIR "/docs/findings.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text == catalogue_markdown());
}

TEST_CASE("worst: is the highest severity, and a note for nothing at all") {
  CHECK(worst({}) == Severity::note);
  CHECK(worst({{Code::overlay_longer, ""}, {Code::link_missing, ""}}) == Severity::fatal);
  CHECK(worst({{Code::image_corrupt_bit, ""}, {Code::overlay_longer, ""}}) == Severity::corruption);
}
