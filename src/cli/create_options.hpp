// SPDX-License-Identifier: MIT
// What `-o` says of an image that is to be made, in qemu-img's words.
#pragma once

#include <string>

#include <coldchain/analysis/measure.hpp>

namespace coldchain::cli {

// `text`: "name=value,…", a comma in a value twice; `format`: "qcow2" or "raw". Errors:
// invalid_argument, in qemu-img's words where it has some.
[[nodiscard]] Result<analysis::NewImage> parse_create_options(const std::string& format,
                                                              const std::string& text);

}  // namespace coldchain::cli
