// SPDX-License-Identifier: MIT
// The catalogue of everything that can be found: one row per code. Codes are persistent: never
// reused, never renumbered. docs/findings.md is generated from it, and a test compares the two.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace coldchain::finding {

enum class Severity { note, leak, corruption, fatal };

// The first two digits are the family: 10 links of the tree, 20 what one image says of itself, 30
// header, 31 refcounts, 32 mapping, 33 who owns which clusters, 34 snapshots, 35 bitmaps, 36 data
// file and encryption, 37 what an upload may not have.
enum class Code : std::uint16_t {
  link_missing = 1001,
  link_not_permitted = 1002,
  link_unreadable = 1003,
  link_loop = 1004,
  link_outside_root = 1005,
  link_too_deep = 1006,
  link_not_followed = 1007,
  link_not_local = 1008,
  link_not_allowed = 1009,
  link_format_not_recorded = 1010,
  link_format_contradicts = 1011,
  link_probed_has_links = 1012,
  link_locked = 1013,
  link_not_a_file = 1014,
  link_relative_json = 1015,
  link_roles_contradict = 1016,
  link_overrides = 1017,
  link_definition_differs = 1018,
  overlay_longer = 1020,
  overlay_shorter = 1021,
  backing_changed = 1022,
  data_file_missing_name = 1030,
  data_file_with_backing = 1031,
  image_unreadable = 2001,
  image_unknown_incompatible = 2002,
  image_dirty = 2003,
  image_corrupt_bit = 2004,
  image_mapping_unreadable = 2005,
  image_refcounts_unreadable = 2006,
  image_bitmaps_unreadable = 2007,
  image_snapshots_unreadable = 2008,
  image_encrypted = 2009,
  image_encryption_unreadable = 2010,
  image_data_unreadable = 2011,
  raw_size_unaligned = 2012,
  zero_tail = 2013,
  image_behind_end = 2014,
  image_inside_raw = 2015,
  header_not_recognised = 2016,
  header_length_unaligned = 3001,
  header_unknown_compatible = 3002,
  header_unknown_autoclear = 3003,
  header_extension_repeated = 3004,
  header_no_refcount_table = 3005,
  header_backing_name_overlaps = 3006,
  header_extension_length = 3007,
  header_extension_without_use = 3008,
  refcount_table_entry_reserved = 3101,
  refcount_block_unaligned = 3102,
  refcount_block_past_end = 3103,
  refcount_block_shared = 3104,
  refcount_too_low = 3105,
  cluster_leaked = 3106,
  refcount_overflow = 3107,
  refcount_past_end = 3108,
  refcount_unreadable = 3109,
  refcount_table_unreadable = 3110,
  l1_entry_reserved = 3201,
  l2_table_unaligned = 3202,
  reference_past_end = 3203,
  l2_entry_reserved = 3204,
  compressed_copied = 3205,
  compressed_with_data_file = 3206,
  compressed_with_subclusters = 3207,
  subclusters_contradict = 3208,
  subclusters_without_cluster = 3209,
  data_cluster_unaligned = 3210,
  zero_cluster_unaligned = 3211,
  l1_entry_copied_wrong = 3212,
  l2_entry_copied_wrong = 3213,
  zero_flag_not_allowed = 3214,
  data_file_offset_differs = 3215,
  mapping_not_walked = 3216,
  table_unreadable = 3217,
  compressed_data_bad = 3218,
  data_past_end = 3219,
  table_past_end = 3220,
  mapped_past_disk = 3221,
  structures_overlap = 3301,
  data_in_metadata = 3302,
  cluster_used_twice = 3303,
  orphan_table = 3304,
  shared_cluster_user = 3305,
  l2_table_empty = 3306,
  lost_snapshot = 3307,
  l2_table_part_empty = 3308,
  orphan_content = 3309,
  snapshot_table_too_large = 3401,
  snapshot_table_unaligned = 3402,
  snapshot_entry_incomplete = 3403,
  snapshot_l1_unaligned = 3404,
  snapshot_l1_too_large = 3405,
  snapshot_with_data_file = 3406,
  snapshot_id_repeated = 3407,
  snapshot_l1_too_small = 3408,
  bitmap_directory_bad = 3501,
  bitmap_table_bad = 3502,
  bitmap_table_entry_reserved = 3503,
  bitmap_in_use = 3504,
  bitmap_unknown_flags = 3505,
  bitmap_name_repeated = 3506,
  bitmap_coverage_wrong = 3507,
  bitmaps_stale = 3508,
  bitmap_unknown_type = 3509,
  data_file_too_short = 3601,
  encryption_header_bad = 3602,
  upload_has_backing = 3701,
  upload_has_data_file = 3702,
  upload_name_escapes = 3703,
  upload_size_absurd = 3704,
  upload_is_encrypted = 3705,
  upload_is_raw = 3706,
  upload_format_not_allowed = 3707,
  upload_ambiguous = 3708,
};

// The smallest -r that repairs it. `none`: no repair exists, or nothing needs to be done.
enum class Tier : std::uint8_t { none, leaks, all };

struct Row {
  Code code;
  std::string_view slug;
  Severity severity;
  std::string_view meaning;  // one sentence
  std::string_view advice;   // what a person does next
  Tier repaired_by = Tier::none;
  std::string_view repair{};  // what it does
};

[[nodiscard]] std::span<const Row> catalogue();
[[nodiscard]] const Row& row(Code code);
[[nodiscard]] std::string_view to_string(Severity severity);

// "none", or the tiers and what they do: "leaks, all: The bit is cleared …".
[[nodiscard]] std::string repair_text(const Row& row);

// The text of docs/findings.md.
[[nodiscard]] std::string catalogue_markdown();

}  // namespace coldchain::finding
