// SPDX-License-Identifier: MIT
// What an image that somebody uploads should not have: links to other files, encryption, an absurd
// size. They are notes; the caller decides which of them refuse the image.
#pragma once

#include <coldchain/finding/finding.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::check {

[[nodiscard]] finding::Findings check_admission(const qcow2::Header& header);

// What an upload service refuses if it has no list of its own.
[[nodiscard]] std::vector<finding::Code> default_denials();

}  // namespace coldchain::check
