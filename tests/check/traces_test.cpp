// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "patient.hpp"
#include "sparse_file.hpp"

#include <algorithm>

#include <coldchain/check/check.hpp>
#include <coldchain/check/traces.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::check;
using finding::Code;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

Bytes image() {
  ImageOptions options;
  options.cluster_bits = 12;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 16; ++cluster)
    builder.data(cluster, 'd');
  return builder.build().flat();
}

Bytes joined(const Bytes& first, const Bytes& second) {
  Bytes all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

finding::Findings raw_traces(const Bytes& bytes, bool deep = false) {
  return traces_in_raw(io::MemoryFile(bytes), deep);
}

}  // namespace

TEST_CASE("traces: a qcow2 header at a sector of a raw file is found, and nothing in plain data") {
  CHECK(raw_traces(Bytes(1 << 20)).empty());
  CHECK(raw_traces(image()).empty());
  const finding::Findings shifted = raw_traces(joined(Bytes(1536), image()));
  REQUIRE(shifted.size() == 1);
  CHECK(shifted.front().code == Code::image_inside_raw);
  CHECK(shifted.front().host.begin == HostOffset{1536});
  CHECK(raw_traces(joined(Bytes(1500), image())).empty());  // no sector begins there
}

TEST_CASE("traces: the middle of a large file is searched only if asked for") {
  const Bytes large = joined(joined(Bytes(3 << 20), image()), Bytes(3 << 20));
  CHECK(raw_traces(large).empty());
  CHECK(raw_traces(large, true).size() == 1);
}

TEST_CASE("traces: the tables of an image whose header was overwritten are found") {
  Bytes bytes = image();
  std::fill(bytes.begin(), bytes.begin() + 4096, std::byte{'x'});
  const finding::Findings found = raw_traces(bytes);
  REQUIRE(found.size() == 1);
  CHECK(found.front().code == Code::header_not_recognised);
}

TEST_CASE("traces: a second image behind the end of an image is a note of its check") {
  const io::MemoryFile file(joined(image(), image()));
  const auto opened = qcow2::Image::open_damaged(file);
  REQUIRE(opened.has_value());
  const auto result = check::check(*opened, {});
  REQUIRE(result.has_value());
  CHECK(result->findings.has(Code::image_behind_end));
  CHECK(result->findings.worst() == finding::Severity::note);
}

TEST_CASE("check: data clusters in one hole at the end of the file are a note, unless in order") {
  // The data of these guest clusters moves behind the tables, and is a hole there.
  const auto is_noted = [](const std::vector<std::uint64_t>& guest_clusters) {
    testing::Patient patient(image());
    const std::uint64_t size = patient.bytes().size();
    for (const std::uint64_t cluster : guest_clusters)
      patient.move_to_end(cluster, 1);
    Bytes bytes = patient.bytes();
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(size), bytes.end(), std::byte{0});
    const testing::SparseFile file(bytes);
    const auto opened = qcow2::Image::open_damaged(file);
    REQUIRE(opened.has_value());
    const auto result = check::check(*opened, {});
    REQUIRE(result.has_value());
    return result->findings.has(Code::zero_tail);
  };
  CHECK(is_noted({3, 1, 2}));
  CHECK_FALSE(is_noted({12, 13, 14}));
}
