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

// The first two digits are the family: 10 links of the tree, 20 what one image says of itself.
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
};

struct Row {
  Code code;
  std::string_view slug;
  Severity severity;
  std::string_view meaning;  // one sentence
  std::string_view advice;   // what a person does next
};

[[nodiscard]] std::span<const Row> catalogue();
[[nodiscard]] const Row& row(Code code);
[[nodiscard]] std::string_view to_string(Severity severity);

// The text of docs/findings.md.
[[nodiscard]] std::string catalogue_markdown();

}  // namespace coldchain::finding
