// SPDX-License-Identifier: MIT
// How large an image will be, as qemu-img measure says it.
#pragma once

#include <string>

#include <coldchain/analysis/measure.hpp>

namespace coldchain::report {

[[nodiscard]] std::string measure_text(const analysis::Measure& measure);
[[nodiscard]] std::string measure_json(const analysis::Measure& measure);

}  // namespace coldchain::report
