// SPDX-License-Identifier: MIT
// What QEMU refuses to open an image for, although its header can be read and its guest data, too.
#pragma once

#include <coldchain/finding/finding.hpp>
#include <coldchain/qcow2/image.hpp>

namespace coldchain::analysis {

// One finding for each such structure: the bitmaps, the encryption header. None of an image whose
// features are not known: what is in it may mean something new.
[[nodiscard]] finding::Findings refusals_of(const qcow2::Image& image);

// Whether a finding is one of these.
[[nodiscard]] bool is_refusal(finding::Code code);

}  // namespace coldchain::analysis
