// SPDX-License-Identifier: MIT
// Recipes for header extensions and bitmap directories for which QEMU refuses the whole image.
#pragma once

#include "damage.hpp"

namespace coldchain::testing {

[[nodiscard]] std::vector<Damage> extension_damages();

}  // namespace coldchain::testing
