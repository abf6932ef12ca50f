// SPDX-License-Identifier: MIT
// A second look at L2 tables, after the mapping pass: for the passes that ask one more question of
// images that gave a reason for it. Adds no finding about a table that cannot be read, is not
// aligned or is not in the file: the mapping pass has done that.
#pragma once

#include "table_scan.hpp"

#include <span>

namespace coldchain::check {

struct TableWalk {
  std::span<const Survey::L1Table> l1_tables;
  // L1 entries below this one are passed over.
  std::uint64_t first_entry = 0;
  // A table that is named again is visited again, until the tables visited again have this size.
  std::uint64_t most_again_bytes = 0;
};

using TableVisitor = std::function<void(const Reference&, const std::vector<be64>& table)>;

// Calls `visit` for each L2 table that the tables name and that can be read. Passes over tables in
// holes, which name nothing.
void walk_tables(Survey& survey, const TableWalk& walk, const TableVisitor& visit);

}  // namespace coldchain::check
