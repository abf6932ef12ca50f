// SPDX-License-Identifier: MIT
// `info`: qemu-img 7.2's text and JSON, key for key and in its order; what else is known comes in
// the JSON under "coldchain" (docs/json.md).
#pragma once

#include <vector>

#include <coldchain/analysis/image_info.hpp>
#include <coldchain/report/sink.hpp>

namespace coldchain::report {

[[nodiscard]] Result<void> write_info_text(const std::vector<analysis::ImageInfo>& images,
                                           const Sink& sink);

// `as_array`: for --backing-chain, where even one image is in a list.
[[nodiscard]] Result<void> write_info_json(const std::vector<analysis::ImageInfo>& images,
                                           bool as_array, const Sink& sink);

}  // namespace coldchain::report
