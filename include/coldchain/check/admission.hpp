// SPDX-License-Identifier: MIT
// Finds what an uploaded image should not have: links to other files, encryption, an absurd size,
// another format than it seems to have. The findings are notes; the caller decides which of them
// refuse the image.
#pragma once

#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::check {

// `top` was opened for admission. Fails where a raw disk cannot be read.
[[nodiscard]] Result<finding::Findings> check_admission(const graph::Node& top);

// The findings that an upload service refuses if it has no list of its own.
[[nodiscard]] std::vector<finding::Code> default_denials();

}  // namespace coldchain::check
