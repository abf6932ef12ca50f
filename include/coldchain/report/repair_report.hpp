// SPDX-License-Identifier: MIT
// `check -r` and `repair`: what is, or would be, changed. qemu-img's text and JSON of a repair, and
// ours beside it.
#pragma once

#include <string>

#include <coldchain/ops/repair.hpp>
#include <coldchain/report/check_report.hpp>
#include <coldchain/report/planned.hpp>

namespace coldchain::report {

struct RepairFacts {
  const ops::Repair* repair = nullptr;
  ops::RepairTier tier{};
  bool is_dry_run = false;
  std::uint64_t changed_bytes = 0;
  std::uint64_t size_before = 0;  // of the image file
  std::uint64_t size_after = 0;
  std::string undo_file{};  // empty where there is none
  Planned planned{};
};

// The image as the repair leaves it, with the numbers of what it mends.
[[nodiscard]] CheckedImage repaired_image(const std::string& filename, const ops::Repair& repair);

// What the messages about the image as it was call repaired.
[[nodiscard]] std::set<finding::Code> repaired_codes(const ops::Repair& repair);

// "The following inconsistencies were found and repaired", if there were any.
[[nodiscard]] std::string repair_text(const CheckedImage& after);

// The plan: every action, what is lost, what is kept.
[[nodiscard]] Result<void> write_repair_plan(const RepairFacts& facts, const Sink& sink);

// What an owner must know, however little else is told: lost ranges, what was given up or
// linked, kept clusters, proposals.
[[nodiscard]] std::string repair_warnings(const ops::Repair& repair);

// The member "repair" of the JSON.
void write_repair_member(JsonWriter& json, const RepairFacts& facts);

}  // namespace coldchain::report
