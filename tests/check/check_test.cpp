// SPDX-License-Identifier: MIT
#include "damage.hpp"
#include "sparse_file.hpp"
#include "unreadable_file.hpp"

#include <set>

#include <coldchain/base/checked.hpp>
#include <coldchain/check/check.hpp>
#include <coldchain/check/layout.hpp>
#include <coldchain/io/memory_file.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::check;
using finding::Code;
using testing::Damage;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

CheckResult checked(const Bytes& bytes, unsigned workers = 1) {
  const io::MemoryFile file(bytes);
  Result<qcow2::Image> image = qcow2::Image::open_damaged(file);
  REQUIRE_MESSAGE(image.has_value(), image.error().message);
  Result<CheckResult> result = check::check(*image, {.deep = true, .workers = workers});
  REQUIRE_MESSAGE(result.has_value(), result.error().message);
  return std::move(*result);
}

std::set<Code> codes(const CheckResult& result) {
  std::set<Code> all;
  for (const finding::Finding& finding : result.findings.runs())
    all.insert(finding.code);
  return all;
}

}  // namespace

TEST_CASE("check: every recipe's damage is found, and nothing in the sound image") {
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const std::set<Code> found = codes(checked(damage.image()));
    for (const Code code : damage.expected)
      CHECK_MESSAGE(found.contains(code), finding::row(code).slug);
    const std::set<Code> sound = codes(checked(damage.sound.build().flat()));
    for (const Code code : sound)
      CHECK_MESSAGE(finding::row(code).severity == finding::Severity::note,
                    finding::row(code).slug);
  }
}

TEST_CASE("check: there are at least 120 recipes, each with a name of its own") {
  std::set<std::string> names;
  for (const Damage& damage : testing::damages())
    CHECK(names.insert(damage.name).second);
  CHECK(names.size() >= 120);
}

TEST_CASE("check: the result does not depend on the number of workers") {
  for (const Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const CheckResult one = checked(damage.image(), 1);
    const CheckResult four = checked(damage.image(), 4);
    CHECK(one.counts.corruptions == four.counts.corruptions);
    CHECK(one.counts.leaks == four.counts.leaks);
    CHECK(one.findings.runs().size() == four.findings.runs().size());
  }
}

TEST_CASE("check: each finding that an image can have has a recipe or a test elsewhere") {
  std::set<Code> known;
  for (const Damage& damage : testing::damages())
    known.insert(damage.expected.begin(), damage.expected.end());
  // Of links, uploads and what only hostile or unreadable files have: tests of their own.
  const std::set<Code> elsewhere = {Code::mapping_not_walked, Code::table_unreadable,
                                    Code::refcount_table_unreadable, Code::data_file_too_short};
  for (const finding::Row& row : finding::catalogue()) {
    const auto number = static_cast<unsigned>(row.code);
    if (number >= 3000 && number < 3700 && !elsewhere.contains(row.code))
      CHECK_MESSAGE(known.contains(row.code), row.slug);
  }
}

TEST_CASE("check: says where: structure, index, host and guest range, entry") {
  const auto& all = testing::damages();
  const auto damage = std::find_if(all.begin(), all.end(), [](const Damage& candidate) {
    return candidate.name == "l2-entry-reserved";
  });
  const CheckResult result = checked(damage->image());
  REQUIRE(result.findings.runs().size() == 1);
  const finding::Finding& finding = result.findings.runs().front();
  CHECK(finding.structure == finding::Structure::l2_table);
  CHECK(finding.index == 4);
  CHECK(finding.host.size() == 8);
  CHECK(finding.guest == GuestRange{{4 * 4096}, {5 * 4096}});
  CHECK((finding.entry >> 56 & 1) == 1);
}

TEST_CASE("check: one L2 table named by very many entries is read once") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 1ULL << 31;  // 65,536 L1 entries
  const Bytes sound = ImageBuilder(options).data(0, 'a').build().flat();
  testing::Patient patient(sound);
  for (std::uint64_t i = 1; i < 65536; ++i)
    patient.set(patient.l1_entry(i), patient.at(patient.l1_entry()));
  const CheckResult result = checked(patient.bytes());
  CHECK(result.counts.allocated_clusters == 65536);
  CHECK(codes(result).contains(Code::refcount_too_low));
}

TEST_CASE("check: tables that overlap without end are left out, and the result says so") {
  ImageOptions options;
  options.cluster_bits = 21;
  options.size = 1ULL << 50;  // 2,048 L1 entries
  testing::Patient patient(ImageBuilder(options).data(0, 'a').build().flat());
  const std::uint64_t first = patient.at(patient.l1_entry());
  for (std::uint64_t i = 1; i < 2048; ++i)
    patient.set(patient.l1_entry(i), (first & ~(1ULL << 63)) + 512 * i);
  const CheckResult result = checked(patient.bytes());
  CHECK(result.is_partial);
  CHECK(codes(result).contains(Code::mapping_not_walked));
}

TEST_CASE("check: a data file that ends too early is told") {
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder builder(options);
  builder.data(0, 'a');
  const io::MemoryFile file(builder.build().flat());
  const io::MemoryFile data(Bytes(65536));
  qcow2::Image image = qcow2::Image::open_damaged(file).value();
  image.attach_data_file(data);
  const CheckResult result = check::check(image, {.deep = false, .workers = 1}).value();
  CHECK(codes(result) == std::set{Code::data_file_too_short});
  const io::MemoryFile cut(Bytes(1000));
  image.attach_data_file(cut);
  const CheckResult lost = check::check(image, {.deep = false, .workers = 1}).value();
  REQUIRE(codes(lost) == std::set{Code::data_file_too_short, Code::data_past_end});
  for (const finding::Finding& finding : lost.findings.runs()) {
    if (finding.code == Code::data_past_end)
      CHECK(finding.guest == GuestRange{{1000}, {65536}});
  }
}

TEST_CASE("check: data that the file ends before is named by guest and host, to the byte") {
  const auto found = [](const std::string& name) {
    const CheckResult result = checked(testing::damage(name).image());
    CHECK(result.counts.corruptions == 0);  // as qemu-img counts
    finding::Finding cut;
    for (const finding::Finding& finding : result.findings.runs()) {
      if (finding.code == Code::data_past_end)
        cut = finding;
    }
    return cut;
  };
  const std::uint64_t size = testing::damage("last-data-cluster-cut").image().size();
  const finding::Finding cluster = found("last-data-cluster-cut");
  CHECK(cluster.guest == GuestRange{{4 * 4096 + 2048 + 100}, {5 * 4096}});
  CHECK(cluster.found == size);
  CHECK(found("last-compressed-cluster-cut").guest == GuestRange{{32 * 4096}, {33 * 4096}});
  // Of two subclusters, the second has one byte.
  CHECK(found("last-subcluster-cut").guest ==
        GuestRange{{6 * 16384 + 4 * 512 + 1}, {6 * 16384 + 5 * 512}});
}

TEST_CASE("check: a table that the system cannot read costs what it describes, and no more") {
  ImageOptions options;
  options.size = 8192ULL << 16;
  ImageBuilder builder(options);
  for (std::uint64_t cluster = 0; cluster < 8192; cluster += 64)
    builder.data(cluster, 'd');
  const testing::Patient patient(builder.build().flat());
  const HostOffset table{patient.at(patient.l1_entry()) & qcow2::offset_mask};
  const HostOffset block{patient.at(patient.refcount_table_entry())};
  const HostOffset refcounts{patient.header().refcount_table_offset};
  const HostOffset l1{patient.header().l1_table_offset};
  struct Fault {
    HostOffset at;
    Code code;
    finding::Structure structure;
    GuestRange guest;
    std::uint64_t allocated;
  };
  const std::vector<Fault> faults{
      {table + 4096,
       Code::table_unreadable,
       finding::Structure::l2_table,
       {{512ULL << 16}, {1024ULL << 16}},
       128 - 8},
      {l1, Code::table_unreadable, finding::Structure::l1_table, {{0}, {8192ULL << 16}}, 0},
      {block, Code::refcount_table_unreadable, finding::Structure::refcount_block, {}, 128},
      {refcounts, Code::refcount_table_unreadable, finding::Structure::refcount_table, {}, 128}};
  for (const Fault& fault : faults) {
    CAPTURE(fault.at.value);
    const testing::UnreadableFile file(patient.bytes(), {{fault.at, fault.at + 512}});
    const qcow2::Image image = qcow2::Image::open_damaged(file).value();
    const CheckResult result = check::check(image, {.deep = false, .workers = 2}).value();
    CHECK_FALSE(result.failure);
    CHECK(result.counts.allocated_clusters == fault.allocated);
    const auto& runs = result.findings.runs();
    const auto found = std::find_if(runs.begin(), runs.end(), [&](const finding::Finding& run) {
      return run.code == fault.code;
    });
    REQUIRE(found != runs.end());
    CHECK(found->structure == fault.structure);
    CHECK(found->host.begin <= fault.at);
    CHECK(found->guest == fault.guest);
    CHECK(found->detail.find("Input/output error") != std::string::npos);
  }
}

TEST_CASE("check: a table that cannot be read is reported once, also where clusters are shared") {
  ImageOptions options;
  options.cluster_bits = 9;
  options.size = 32 << 20;  // 1024 L1 entries
  testing::Patient patient(ImageBuilder(options).data(0, 'a').data(1, 'b').build().flat());
  patient.set(patient.l2_entry(1), patient.at(patient.l2_entry(0)));
  const HostOffset part{patient.header().l1_table_offset + 4096};
  const testing::UnreadableFile file(patient.bytes(), {{part, part + 512}});
  const qcow2::Image image = qcow2::Image::open_damaged(file).value();
  const CheckResult result = check::check(image, {.deep = false, .workers = 1}).value();
  CHECK(codes(result).contains(Code::shared_cluster_user));
  const auto& runs = result.findings.runs();
  CHECK(std::count_if(runs.begin(), runs.end(), [](const finding::Finding& run) {
          return run.code == Code::table_unreadable;
        }) == 1);
}

TEST_CASE("layout: where a refcount block cannot be read, nothing is said to be free") {
  const testing::Patient patient(
      ImageBuilder(ImageOptions{}).data(0, 'a').data(1, 'b').build().flat());
  const HostOffset block{patient.at(patient.refcount_table_entry())};
  // Two clusters that nothing refers to.
  Bytes bytes = patient.bytes();
  bytes.resize(bytes.size() + 2 * patient.cluster_size());
  const testing::UnreadableFile file(bytes, {{block, block + 512}});
  const qcow2::Image image = qcow2::Image::open_damaged(file).value();
  const CheckResult result = check::check(image, {.deep = false, .workers = 1}).value();
  std::vector<check::LayoutRange> ranges;
  const auto totals = check::layout(result, patient.cluster_size(), file.size(),
                                    [&](const LayoutRange& range) { ranges.push_back(range); });
  REQUIRE_FALSE(ranges.empty());
  CHECK(ranges.back().use == Use::unknown);
  CHECK(ranges.back().host.size() == 2 * patient.cluster_size());
  CHECK(std::none_of(totals.begin(), totals.end(),
                     [](const LayoutTotal& total) { return total.use == Use::free; }));
}

TEST_CASE("check: unknown incompatible features are an error") {
  ImageBuilder builder{ImageOptions{}};
  builder.patch_header([](qcow2::Header& h) { h.incompatible_features |= 1ULL << 30; });
  const io::MemoryFile file(builder.build().flat());
  const qcow2::Image image = qcow2::Image::open_damaged(file).value();
  CHECK_FALSE(check::check(image, {}).has_value());
}

TEST_CASE("check: one compressed stream that many entries name is decompressed once") {
  ImageOptions options;
  testing::Patient patient(ImageBuilder(options).compressed(0, 'a').build().flat());
  for (std::uint64_t i = 1; i < 16; ++i)
    patient.set(patient.l2_entry(i), patient.at(patient.l2_entry(0)));
  const testing::SparseFile file(patient.bytes());
  qcow2::Image image = qcow2::Image::open_damaged(file).value();
  const auto bytes_read = [&](bool deep) {
    const std::uint64_t before = file.bytes_read();
    CHECK_FALSE(check::check(image, {.deep = deep, .workers = 1})->is_partial);
    return file.bytes_read() - before;
  };
  CHECK(bytes_read(true) - bytes_read(false) <= 1024);
  // A stream that is broken is a finding of each entry.
  const std::uint64_t stream =
      qcow2::L2Entry(patient.at(patient.l2_entry(0))).compressed_extent(16).begin.value;
  patient.set(stream, ~0ULL);
  CHECK(checked(patient.bytes()).findings.runs().size() >= 16);
}

TEST_CASE("check: streams that overlap end a deep check, and the result says so") {
  ImageOptions options;
  options.size = 512 << 20;
  testing::Patient patient(ImageBuilder(options).compressed(0, 'a').build().flat());
  const std::uint64_t first = patient.at(patient.l2_entry(0));
  for (std::uint64_t i = 1; i < 8192; ++i)
    patient.set(patient.l2_entry(i), first + i);
  const CheckResult result = checked(patient.bytes());
  CHECK(result.is_partial);
  CHECK(codes(result).contains(Code::mapping_not_walked));
}

TEST_CASE("check: snapshots that name one L1 table in a hole cost no more than an image can have") {
  ImageOptions options;
  options.cluster_bits = 9;
  ImageBuilder builder(options);
  builder.data(0, 'a');
  for (int i = 0; i < 200; ++i)
    builder.snapshot(std::to_string(i), "s");
  testing::Patient patient(builder.build().flat());
  std::uint64_t entry = patient.snapshot_entry();
  for (int i = 0; i < 200; ++i) {
    patient.set(entry, 1ULL << 30);
    patient.set_number(entry + 8, 4, 4 << 20);
    const std::uint64_t sizes = patient.number(entry + 12, 2) + patient.number(entry + 14, 2) +
                                patient.number(entry + 36, 4);
    entry = align_up(entry + 40 + sizes, 8);
  }
  const testing::SparseFile file(patient.bytes(), 1ULL << 40);
  const qcow2::Image image = qcow2::Image::open_damaged(file).value();
  const CheckResult result = check::check(image, {.deep = false, .workers = 1}).value();
  CHECK(result.is_partial);
  CHECK(codes(result).contains(Code::mapping_not_walked));
  CHECK(file.bytes_read() < 1 << 20);
  CHECK(result.counts.corruptions < 1 << 19);
}
