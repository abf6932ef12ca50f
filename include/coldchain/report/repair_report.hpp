// SPDX-License-Identifier: MIT
// `check -r` and `repair`: the changes that are or would be made, as qemu-img's text and JSON of a
// repair, with our own beside it.
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

// The image after the repair, with the numbers of repaired errors.
[[nodiscard]] CheckedImage repaired_image(const std::string& filename, const ops::Repair& repair);

// What qemu-img prints on stderr of a repair, in its order, and our messages: what was wrong; which
// refcounts are repaired, or that all are rebuilt; which copied flags are repaired, by the
// refcounts as they are then; what is left.
[[nodiscard]] Result<void> write_repair_messages(const std::string& filename,
                                                 const RepairFacts& facts, bool by_runs,
                                                 const Style& style, const Sink& sink);

// "The following inconsistencies were found and repaired", if there were any.
[[nodiscard]] std::string repair_text(const CheckedImage& after);

// The plan: every action, what is lost, what is kept.
[[nodiscard]] Result<void> write_repair_plan(const RepairFacts& facts, const Sink& sink);

// Warnings that the owner must see, also with -q: lost ranges, discarded data, linked tables,
// kept clusters, proposals.
[[nodiscard]] std::string repair_warnings(const ops::Repair& repair);

// The member "repair" of the JSON.
void write_repair_member(JsonWriter& json, const RepairFacts& facts);

}  // namespace coldchain::report
