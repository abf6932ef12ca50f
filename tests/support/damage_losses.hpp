// SPDX-License-Identifier: MIT
// Recipes for signs of what may be lost: parts of tables that were wiped, L1 entries that name
// something else than a table, disks whose recorded size is too small.
#pragma once

#include "damage.hpp"

namespace coldchain::testing {

[[nodiscard]] std::vector<Damage> loss_damages();

}  // namespace coldchain::testing
