// SPDX-License-Identifier: MIT
// The lines and members that the plans of all changes have.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <coldchain/ops/plan.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/planned.hpp>

namespace coldchain::report {

[[nodiscard]] std::string plan_line(std::string_view name, const std::string& text);

// From "read" to "side file".
[[nodiscard]] std::string cost_lines(const ops::Cost& cost);

// Each range that is taken as zeros because it cannot be read, for standard error.
[[nodiscard]] std::string unreadable_warnings(const ops::Cost& cost);

// From "sources" to "side-file-bytes", into the object that is open.
void write_cost(JsonWriter& json, const ops::Cost& cost);

// What `apply` reads and compares; nothing where there is no command.
void write_planned(JsonWriter& json, const Planned& planned);

void write_not_needed(JsonWriter& json, const std::vector<ops::LayerStorage>& layers);

void write_dirty_bitmaps(JsonWriter& json, const std::vector<ops::DirtyBitmap>& bitmaps);
// A line for each, under the name of the image.
[[nodiscard]] std::string dirty_bitmap_warnings(const std::vector<ops::DirtyBitmap>& bitmaps,
                                                std::string_view image);
void write_names(JsonWriter& json, std::string_view key, const std::vector<std::string>& names);

}  // namespace coldchain::report
