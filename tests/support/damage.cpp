// SPDX-License-Identifier: MIT
#include "damage.hpp"

#include "damage_extensions.hpp"
#include "damage_losses.hpp"
#include "damage_samples.hpp"

#include <algorithm>
#include <stdexcept>

#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/qcow2/wire.hpp>

namespace coldchain::testing {

namespace {

using finding::Code;
using qcow2::copied_flag;
using qcow2::Header;

// Far, yet so near that QEMU rebuilds the refcounts up to there in a moment.
constexpr std::uint64_t past_everything = 1ULL << 36;

// The same damage in images of different shape.
struct Shape {
  std::string suffix;  // of the recipes' names
  ImageBuilder image;
};

std::vector<Shape> shapes() {
  ImageOptions wide = small_clusters();
  wide.cluster_bits = 10;
  wide.refcount_order = 5;
  return {{"", plain()}, {"-with-32-bit-refcounts", filled(wide)}};
}

// Header bits and fields.
void add_header_damages(std::vector<Damage>& all) {
  const auto header = [&](const char* name, void (*change)(Header&), Code code) {
    all.push_back({name, plain(), [change](Patient& p) { p.set_header(change); }, {code}});
  };
  header(
      "dirty-bit", [](Header& h) { h.incompatible_features |= 1; }, Code::image_dirty);
  header(
      "corrupt-bit", [](Header& h) { h.incompatible_features |= 2; }, Code::image_corrupt_bit);
  header(
      "unknown-compatible-bit", [](Header& h) { h.compatible_features |= 1ULL << 40; },
      Code::header_unknown_compatible);
  header(
      "unknown-autoclear-bit", [](Header& h) { h.autoclear_features |= 1ULL << 9; },
      Code::header_unknown_autoclear);
  header(
      "no-refcount-table", [](Header& h) { h.refcount_table_clusters = 0; },
      Code::header_no_refcount_table);
  header(
      "refcount-table-past-end", [](Header& h) { h.refcount_table_offset = past_everything; },
      Code::reference_past_end);
  header(
      "refcount-table-is-l1-table", [](Header& h) { h.refcount_table_offset = h.l1_table_offset; },
      Code::structures_overlap);
  header(
      "l1-table-past-end", [](Header& h) { h.l1_table_offset = past_everything; },
      Code::reference_past_end);
  header(
      "l1-table-is-header", [](Header& h) { h.l1_table_offset = 0; }, Code::structures_overlap);
  header(
      "snapshots-unaligned", [](Header& h) { h.snapshots_offset = 512; },
      Code::snapshot_table_unaligned);
  header(
      "too-many-snapshots", [](Header& h) { h.nb_snapshots = 70000; },
      Code::snapshot_table_too_large);
  header(
      "snapshots-in-nothing",
      [](Header& h) {
        h.nb_snapshots = 2;
        h.snapshots_offset = past_everything;
      },
      Code::snapshot_entry_incomplete);
  header(
      "bitmaps-bit-without-extension",
      [](Header& h) { h.autoclear_features |= qcow2::autoclear::bitmaps; },
      Code::bitmap_directory_bad);
  header(
      "header-length-odd",
      [](Header& h) {
        h.additional_fields.resize(h.additional_fields.size() + 1);
        h.header_length += 1;
      },
      Code::header_length_unaligned);
  header(
      "extension-twice",
      [](Header& h) {
        h.extensions.push_back({0x12345678, Bytes(8), {}});
        h.extensions.push_back({0x12345678, Bytes(8), {}});
      },
      Code::header_extension_repeated);
  header(
      "bitmaps-extension-too-short",
      [](Header& h) {
        h.extensions.push_back({qcow2::extension::bitmaps, Bytes(8), {}});
      },
      Code::header_extension_length);
  header(
      "feature-name-table-cut",
      [](Header& h) {
        h.extensions.push_back({qcow2::extension::feature_name_table, Bytes(40), {}});
      },
      Code::header_extension_length);
  header(
      "backing-format-without-backing-file",
      [](Header& h) {
        h.extensions.push_back({qcow2::extension::backing_file_format, Bytes(8), {}});
      },
      Code::header_extension_without_use);
  header(
      "data-file-name-without-data-file",
      [](Header& h) {
        h.extensions.push_back({qcow2::extension::external_data_file_name, Bytes(8), {}});
      },
      Code::header_extension_without_use);
  header(
      "backing-name-over-header",
      [](Header& h) {
        h.backing_file_offset = 40;
        h.backing_file_size = 4;
        h.backing_file_bytes = std::nullopt;
      },
      Code::header_backing_name_overlaps);
  header(
      "luks-without-header", [](Header& h) { h.crypt_method = 2; }, Code::encryption_header_bad);
  all.push_back({"luks-header-past-end",
                 plain(),
                 [](Patient& p) {
                   p.set_header([](Header& h) {
                     h.crypt_method = 2;
                     Bytes pointer;
                     append(pointer, qcow2::wire::EncryptionHeaderPointer{past_everything, 4096U});
                     h.extensions.push_back({qcow2::extension::encryption_header, pointer, {}});
                   });
                 },
                 {Code::reference_past_end}});
}

void add_refcount_damages(std::vector<Damage>& all, const Shape& shape) {
  const auto harm = [&](const char* name, std::function<void(Patient&)> change,
                        std::vector<Code> codes) {
    all.push_back({name + shape.suffix, shape.image, std::move(change), std::move(codes)});
  };
  harm("refcount-zero", [](Patient& p) { p.set_refcount(p.host_cluster(3), 0); },
       {Code::refcount_too_low, Code::l2_entry_copied_wrong});
  harm("refcount-two", [](Patient& p) { p.set_refcount(p.host_cluster(3), 2); },
       {Code::cluster_leaked, Code::l2_entry_copied_wrong});
  harm("refcount-of-l1-zero",
       [](Patient& p) { p.set_refcount(p.header().l1_table_offset / p.cluster_size(), 0); },
       {Code::refcount_too_low});
  harm("refcount-of-l2-two",
       [](Patient& p) {
         p.set_refcount((p.at(p.l1_entry()) & qcow2::offset_mask) / p.cluster_size(), 2);
       },
       {Code::cluster_leaked, Code::l1_entry_copied_wrong});
  harm("refcount-of-header-zero", [](Patient& p) { p.set_refcount(0, 0); },
       {Code::refcount_too_low});
  harm("all-refcounts-zero",
       [](Patient& p) {
         for (std::uint64_t cluster = 0; cluster < p.bytes().size() / p.cluster_size(); ++cluster)
           p.set_refcount(cluster, 0);
       },
       {Code::refcount_too_low});
  harm("leak-behind-the-end",
       [](Patient& p) { p.set_refcount(p.bytes().size() / p.cluster_size() + 5, 1); },
       {Code::refcount_past_end});
  harm("leaked-cluster",
       [](Patient& p) {
         p.set_refcount(p.bytes().size() / p.cluster_size(), 1);
         p.resize(p.bytes().size() + p.cluster_size());
       },
       {Code::cluster_leaked});
  harm("refcount-block-missing", [](Patient& p) { p.set(p.refcount_table_entry(), 0); },
       {Code::refcount_too_low});
  harm("refcount-block-unaligned",
       [](Patient& p) { p.set(p.refcount_table_entry(), p.at(p.refcount_table_entry()) + 512); },
       {Code::refcount_block_unaligned, Code::refcount_unreadable});
  harm("refcount-block-past-end",
       [](Patient& p) { p.set(p.refcount_table_entry(), past_everything); },
       {Code::refcount_block_past_end, Code::refcount_too_low});
  harm("refcount-block-past-every-file",
       [](Patient& p) { p.set(p.refcount_table_entry(), ~0xfffULL); }, {Code::refcount_unreadable});
  harm("refcount-table-entry-reserved",
       [](Patient& p) { p.set(p.refcount_table_entry(), p.at(p.refcount_table_entry()) | 1); },
       {Code::refcount_table_entry_reserved});
  harm("refcount-block-twice",
       [](Patient& p) { p.set(p.refcount_table_entry(1), p.at(p.refcount_table_entry())); },
       {Code::refcount_block_shared});
  harm("refcount-block-is-header", [](Patient& p) { p.set(p.refcount_table_entry(1), 0x0); }, {});
  harm("refcount-block-is-data",
       [](Patient& p) { p.set(p.refcount_table_entry(1), p.host_cluster(2) * p.cluster_size()); },
       {Code::refcount_block_shared, Code::data_in_metadata});
}

void add_mapping_damages(std::vector<Damage>& all, const Shape& shape) {
  const auto harm = [&](const char* name, std::function<void(Patient&)> change,
                        std::vector<Code> codes) {
    all.push_back({name + shape.suffix, shape.image, std::move(change), std::move(codes)});
  };
  harm("l1-entry-zeroed", [](Patient& p) { p.set(p.l1_entry(), 0); },
       {Code::cluster_leaked, Code::orphan_table});
  harm("l1-entry-reserved",
       [](Patient& p) { p.set(p.l1_entry(), p.at(p.l1_entry()) | 1ULL << 60); },
       {Code::l1_entry_reserved});
  harm("l1-entry-unaligned", [](Patient& p) { p.set(p.l1_entry(), p.at(p.l1_entry()) + 512); },
       {Code::l2_table_unaligned});
  harm("l1-entry-past-end", [](Patient& p) { p.set(p.l1_entry(), past_everything | copied_flag); },
       {Code::reference_past_end});
  harm("l1-entry-copied-cleared",
       [](Patient& p) { p.set(p.l1_entry(), p.at(p.l1_entry()) & ~copied_flag); },
       {Code::l1_entry_copied_wrong});
  harm("l1-entries-name-one-table", [](Patient& p) { p.set(p.l1_entry(1), p.at(p.l1_entry(0))); },
       {Code::refcount_too_low, Code::cluster_used_twice});
  harm("l1-entry-names-header", [](Patient& p) { p.set(p.l1_entry(), copied_flag); },
       {Code::structures_overlap});
  harm("l1-entry-names-l1-table",
       [](Patient& p) { p.set(p.l1_entry(), p.header().l1_table_offset | copied_flag); },
       {Code::structures_overlap});
  harm("l1-entry-names-refcount-table",
       [](Patient& p) { p.set(p.l1_entry(1), p.header().refcount_table_offset | copied_flag); },
       {Code::structures_overlap});
  harm("l2-entry-reserved",
       [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(4)) | 1ULL << 56); },
       {Code::l2_entry_reserved});
  harm("l2-entry-reserved-low", [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(4)) | 4); },
       {Code::l2_entry_reserved});
  harm("l2-entry-unaligned", [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(4)) + 512); },
       {Code::data_cluster_unaligned});
  harm("zero-cluster-unaligned",
       [](Patient& p) { p.set(p.l2_entry(13), p.at(p.l2_entry(13)) + 512); },
       {Code::zero_cluster_unaligned});
  harm("l2-entry-past-end", [](Patient& p) { p.set(p.l2_entry(4), past_everything | copied_flag); },
       {Code::reference_past_end, Code::cluster_leaked});
  harm("l2-entry-dropped", [](Patient& p) { p.set(p.l2_entry(4), 0); }, {Code::cluster_leaked});
  harm("l2-entry-copied-cleared",
       [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(4)) & ~copied_flag); },
       {Code::l2_entry_copied_wrong});
  harm("l2-entry-twice", [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(5))); },
       {Code::refcount_too_low, Code::cluster_used_twice, Code::cluster_leaked,
        Code::shared_cluster_user, Code::orphan_content});
  harm("l2-entry-twice-and-counted",
       [](Patient& p) {
         const std::uint64_t entry = p.at(p.l2_entry(5)) & ~copied_flag;
         p.set_refcount(p.host_cluster(4), 0);
         p.set_refcount(p.host_cluster(5), 2);
         p.set(p.l2_entry(4), entry);
         p.set(p.l2_entry(5), entry);
       },
       {Code::cluster_used_twice});
  harm("data-in-l1-table-and-counted",
       [](Patient& p) {
         const std::uint64_t l1 = p.header().l1_table_offset;
         p.set_refcount(p.host_cluster(4), 0);
         p.set_refcount(l1 / p.cluster_size(), 2);
         p.set(p.l2_entry(4), l1);
       },
       {Code::data_in_metadata});
  harm("data-in-header", [](Patient& p) { p.set(p.l2_entry(40), 1ULL << 62); },
       {Code::data_in_metadata});
  harm("l2-table-is-junk",
       [](Patient& p) {
         const std::uint64_t table = p.at(p.l1_entry()) & qcow2::offset_mask;
         for (std::uint64_t at = 0; at < p.cluster_size(); at += 8)
           p.set(table + at, 0x9e3779b97f4a7c15 * (at + 1));
       },
       {Code::l2_entry_reserved, Code::cluster_leaked});
  harm("l2-table-lost",
       [](Patient& p) {
         const std::uint64_t table = p.at(p.l1_entry()) & qcow2::offset_mask;
         for (std::uint64_t at = 0; at < p.cluster_size(); at += 8)
           p.set(table + at, 0);
       },
       {Code::l2_table_empty, Code::cluster_leaked});
  harm("l2-entry-names-a-free-cluster",
       [](Patient& p) {
         p.resize(p.bytes().size() + p.cluster_size());
         p.set(p.l2_entry(4), (p.bytes().size() - p.cluster_size()) | copied_flag);
       },
       {Code::refcount_too_low, Code::cluster_leaked});
  harm("last-data-cluster-cut",
       [](Patient& p) {
         const std::uint64_t end = p.bytes().size();
         p.set_refcount(p.host_cluster(4), 0);
         p.set_refcount(end / p.cluster_size(), 1);
         p.set(p.l2_entry(4), end | copied_flag);
         p.resize(end + p.cluster_size() / 2 + 100);
       },
       {Code::data_past_end});
  harm("last-l2-table-cut",
       [](Patient& p) {
         p.move_named_to_end(p.l1_entry());
         p.resize(p.l2_entry(40));
       },
       {Code::table_past_end});
  harm("last-l1-table-cut",
       [](Patient& p) {
         p.move_named_to_end(offsetof(qcow2::wire::Header, l1_table_offset));
         p.resize(p.at(offsetof(qcow2::wire::Header, l1_table_offset)));
       },
       {Code::table_past_end});
  harm("file-cut", [](Patient& p) { p.resize(p.bytes().size() / 2 / 4096 * 4096); },
       {Code::reference_past_end});
}

// Of images with a feature that the plain one has not.
void add_feature_damages(std::vector<Damage>& all) {
  all.push_back({"refcount-of-one-bit-overflows",
                 narrow(),
                 [](Patient& p) { p.set(p.l2_entry(40), p.at(p.l2_entry(2)) & ~copied_flag); },
                 {Code::refcount_overflow}});
  all.push_back({"zero-flag-in-version-2",
                 version2(),
                 [](Patient& p) { p.set(p.l2_entry(7), 1); },
                 {Code::zero_flag_not_allowed}});
  all.push_back({"compressed-copied",
                 with_compressed(),
                 [](Patient& p) { p.set(p.l2_entry(30), p.at(p.l2_entry(30)) | copied_flag); },
                 {Code::compressed_copied}});
  all.push_back({"compressed-past-end",
                 with_compressed(),
                 [](Patient& p) { p.set(p.l2_entry(30), p.at(p.l2_entry(30)) | 1ULL << 40); },
                 {Code::reference_past_end}});
  all.push_back({"last-compressed-cluster-cut",
                 with_compressed(),
                 [](Patient& p) {
                   const std::uint64_t end = p.bytes().size();
                   const std::uint64_t sectors = 2;  // and a third one, which is missing
                   const unsigned sector_bits = 62 - (p.header().cluster_bits - 8);
                   p.set_refcount(end / p.cluster_size(), 1);
                   p.set(p.l2_entry(32), 1ULL << 62 | sectors << sector_bits | end);
                   p.resize(end + sectors * 512);
                 },
                 {Code::data_past_end}});
  all.push_back(
      {"last-compressed-cluster-cut-in-its-last-sector",
       with_compressed(),
       [](Patient& p) {
         const qcow2::CompressedExtent stream =
             qcow2::L2Entry(p.at(p.l2_entry(30))).compressed_extent(p.header().cluster_bits);
         const std::uint64_t end = p.bytes().size();
         p.resize(end + 8);
         for (std::uint64_t i = 0; i < 8; ++i)
           p.set_number(end + i, 1, p.number(stream.begin.value + i, 1));
         p.set_refcount(end / p.cluster_size(), 1);
         p.set(p.l2_entry(32), 1ULL << 62 | end);
       },
       {Code::data_past_end}});
  all.push_back({"last-subcluster-cut",
                 with_subclusters(),
                 [](Patient& p) {
                   const std::uint64_t end = p.bytes().size();
                   p.set_refcount(end / p.cluster_size(), 1);
                   p.set(p.l2_entry(6), end | copied_flag);
                   p.set(p.subclusters(6), 0x0000'0011);  // the first and the fifth
                   p.resize(end + 4 * p.cluster_size() / 32 + 1);
                 },
                 {Code::data_past_end}});
  all.push_back({"compressed-data-destroyed",
                 with_compressed(),
                 [](Patient& p) {
                   const std::uint64_t at = p.at(p.l2_entry(30)) & ((1ULL << 58) - 1);
                   p.set(at, ~0ULL);
                 },
                 {Code::compressed_data_bad}});
  all.push_back({"subclusters-contradict",
                 with_subclusters(),
                 [](Patient& p) { p.set(p.subclusters(0), 0x1'0000'0001); },
                 {Code::subclusters_contradict}});
  all.push_back({"subclusters-without-cluster",
                 with_subclusters(),
                 [](Patient& p) { p.set(p.subclusters(5), 1); },
                 {Code::subclusters_without_cluster}});
  all.push_back({"compressed-with-subclusters",
                 with_subclusters(),
                 [](Patient& p) { p.set(p.subclusters(2), 1); },
                 {Code::compressed_with_subclusters}});
  all.push_back({"zero-flag-with-subclusters-and-no-cluster",
                 with_subclusters(),
                 [](Patient& p) { p.set(p.l2_entry(7), 1); },
                 {Code::zero_flag_not_allowed}});
  all.push_back({"zero-flag-with-subclusters",
                 with_subclusters(),
                 [](Patient& p) { p.set(p.l2_entry(0), p.at(p.l2_entry(0)) | 1); },
                 {Code::zero_flag_not_allowed}});
  all.push_back({"compressed-with-data-file",
                 with_data_file(),
                 [](Patient& p) { p.set(p.l2_entry(5), 1ULL << 62 | 4096); },
                 {Code::compressed_with_data_file}});
  all.push_back({"data-file-offset-differs",
                 with_data_file(),
                 [](Patient& p) { p.set(p.l2_entry(3), 4096 | copied_flag); },
                 {Code::data_file_offset_differs}});
  all.push_back({"data-file-copied-cleared",
                 with_data_file(),
                 [](Patient& p) { p.set(p.l2_entry(3), p.at(p.l2_entry(3)) & ~copied_flag); },
                 {Code::l2_entry_copied_wrong}});
}

void add_snapshot_damages(std::vector<Damage>& all) {
  const auto harm = [&](const char* name, std::function<void(Patient&)> change,
                        std::vector<Code> codes) {
    all.push_back({name, with_snapshot(), std::move(change), std::move(codes)});
  };
  harm("snapshot-l1-unaligned",
       [](Patient& p) { p.set(p.snapshot_entry(), p.at(p.snapshot_entry()) + 512); },
       {Code::snapshot_l1_unaligned, Code::cluster_leaked});
  harm("snapshot-l1-past-end", [](Patient& p) { p.set(p.snapshot_entry(), past_everything); },
       {Code::reference_past_end});
  harm("snapshot-l1-too-large",
       [](Patient& p) { p.set_number(p.snapshot_entry() + 8, 4, 0x7fffffff); },
       {Code::snapshot_l1_too_large});
  harm("snapshot-l1-is-active-l1",
       [](Patient& p) { p.set(p.snapshot_entry(), p.header().l1_table_offset); },
       {Code::structures_overlap});
  harm("snapshot-extra-data-too-long",
       [](Patient& p) { p.set_number(p.snapshot_entry() + 36, 4, 2000); },
       {Code::snapshot_table_too_large});
  harm("snapshot-extra-data-too-short",
       [](Patient& p) { p.set_number(p.snapshot_entry() + 36, 4, 8); },
       {Code::snapshot_entry_incomplete});
  harm("last-snapshot-table-cut",
       [](Patient& p) {
         constexpr std::uint64_t offset_field = offsetof(qcow2::wire::Header, snapshots_offset);
         p.move_named_to_end(offset_field);
         const std::uint64_t at = p.at(offset_field);
         const std::uint64_t size =
             40 + p.number(at + 36, 4) + p.number(at + 12, 2) + p.number(at + 14, 2);
         p.resize(at + size - 1);
       },
       {Code::table_past_end});
  harm("snapshot-l1-too-small", [](Patient& p) { p.set_number(p.snapshot_entry() + 8, 4, 0); },
       {Code::snapshot_l1_too_small, Code::cluster_leaked});
  harm("snapshot-of-a-larger-disk", [](Patient& p) { p.set(p.snapshot_entry() + 48, 1ULL << 40); },
       {Code::snapshot_l1_too_small});
  harm("snapshot-l1-behind-every-offset",
       [](Patient& p) {
         p.set(p.snapshot_entry(), ~0xfffULL);
         p.set_number(p.snapshot_entry() + 8, 4, 16384);
       },
       {Code::reference_past_end});
  harm("snapshot-forgotten",
       [](Patient& p) { p.set_header([](Header& h) { h.nb_snapshots = 0; }); },
       {Code::cluster_leaked});
  harm("snapshot-l1-entry-reserved",
       [](Patient& p) {
         const std::uint64_t entry = p.at(p.snapshot_entry());
         p.set(entry, p.at(entry) | 1);
       },
       {Code::l1_entry_reserved});
  harm("shared-l2-entry-reserved",
       [](Patient& p) { p.set(p.l2_entry(4), p.at(p.l2_entry(4)) | 2); },
       {Code::l2_entry_reserved});
  ImageBuilder two = with_snapshot();
  two.snapshot("1", "second");
  all.push_back({"snapshot-id-twice", two, [](Patient&) {}, {Code::snapshot_id_repeated}});
  ImageBuilder data_file = with_data_file();
  all.push_back({"snapshot-with-data-file",
                 data_file,
                 [](Patient& p) {
                   p.set_header([](Header& h) {
                     h.nb_snapshots = 1;
                     h.snapshots_offset = past_everything;
                   });
                 },
                 {Code::snapshot_with_data_file}});
}

void add_bitmap_damages(std::vector<Damage>& all) {
  const auto harm = [&](const char* name, std::function<void(Patient&)> change,
                        std::vector<Code> codes) {
    all.push_back({name, with_bitmap(), std::move(change), std::move(codes)});
  };
  const auto directory = [](unsigned offset, unsigned bytes, std::uint64_t value) {
    return [=](Patient& p) { p.set_number(p.bitmap_directory() + offset, bytes, value); };
  };
  harm("bitmap-table-past-end", directory(0, 8, past_everything), {Code::reference_past_end});
  harm("bitmap-table-behind-every-offset", directory(0, 8, ~0xfffULL), {Code::reference_past_end});
  harm("bitmap-table-unaligned", directory(0, 8, 0x10200), {Code::bitmap_table_bad});
  harm("bitmap-table-of-another-size", directory(8, 4, 5), {Code::bitmap_coverage_wrong});
  harm("bitmap-flags-unknown", directory(12, 4, 0x80), {Code::bitmap_unknown_flags});
  harm("bitmap-in-use", directory(12, 4, 1), {Code::bitmap_in_use});
  harm("bitmap-type-unknown", directory(16, 1, 7), {Code::bitmap_unknown_type});
  harm("bitmap-granularity-absurd", directory(17, 1, 60), {Code::bitmap_directory_bad});
  harm("bitmap-table-entry-reserved",
       [](Patient& p) { p.set(p.bitmap_table(), p.at(p.bitmap_table()) | 2); },
       {Code::bitmap_table_entry_reserved});
  harm("bitmap-data-past-end", [](Patient& p) { p.set(p.bitmap_table(), past_everything); },
       {Code::reference_past_end});
  harm("last-bitmap-table-cut",
       [](Patient& p) {
         p.move_named_to_end(p.bitmap_directory());
         p.resize(p.bitmap_table());
       },
       {Code::table_past_end});
  harm("last-bitmap-data-cut",
       [](Patient& p) {
         p.move_named_to_end(p.bitmap_table());
         p.resize(p.bytes().size() - p.cluster_size() / 2);
       },
       {Code::table_past_end});
  harm("bitmap-data-is-guest-data",
       [](Patient& p) { p.set(p.bitmap_table(), p.host_cluster(3) * p.cluster_size()); },
       {Code::refcount_too_low, Code::data_in_metadata});
  harm("bitmaps-stale",
       [](Patient& p) { p.set_header([](Header& h) { h.autoclear_features = 0; }); },
       {Code::bitmaps_stale, Code::cluster_leaked});
  ImageBuilder two = with_bitmap();
  two.bitmap("nightlx", 0);
  // Entries are 24 bytes and the name, aligned to 8: the last letter of the second name.
  all.push_back({"bitmap-directory-behind-every-offset",
                 with_bitmap(),
                 [](Patient& p) {
                   p.set_header([](Header& h) {
                     const be64 offset = ~0xfffULL;
                     const ByteView bytes = bytes_of(offset);
                     std::copy(bytes.begin(), bytes.end(), h.extensions.back().data.begin() + 16);
                   });
                 },
                 {Code::bitmap_directory_bad}});
  all.push_back({"bitmap-name-twice",
                 two,
                 [](Patient& p) { p.set_number(p.bitmap_directory() + 32 + 24 + 6, 1, 'y'); },
                 {Code::bitmap_name_repeated}});
}

}  // namespace

Bytes Damage::image() const {
  Patient patient(sound.build().flat());
  harm(patient);
  return patient.bytes();
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = [] {
    std::vector<Damage> list;
    add_header_damages(list);
    for (const Shape& shape : shapes()) {
      add_refcount_damages(list, shape);
      add_mapping_damages(list, shape);
    }
    add_feature_damages(list);
    add_snapshot_damages(list);
    add_bitmap_damages(list);
    const std::vector<Damage> extensions = extension_damages();
    list.insert(list.end(), extensions.begin(), extensions.end());
    const std::vector<Damage> losses = loss_damages();
    list.insert(list.end(), losses.begin(), losses.end());
    return list;
  }();
  return all;
}

const Damage& damage(const std::string& name) {
  for (const Damage& candidate : damages()) {
    if (candidate.name == name)
      return candidate;
  }
  throw std::invalid_argument("there is no recipe " + name);
}

}  // namespace coldchain::testing
