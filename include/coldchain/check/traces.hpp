// SPDX-License-Identifier: MIT
// Traces of qcow2 images where none is expected: inside a raw file, and behind the end of an image.
// They only look suspicious: a guest may keep such files. By default the first and the last MiB are
// searched; all of it if `deep`.
#pragma once

#include <coldchain/finding/finding.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::check {

// Headers at the sectors of a raw file, but not at its first, and tables of an image whose header
// is not recognised. What cannot be read has no traces.
[[nodiscard]] finding::Findings traces_in_raw(const io::File& file, bool deep);

// Headers at the sectors of a file from `begin` on.
[[nodiscard]] finding::Findings headers_behind(const io::File& file, HostOffset begin, bool deep);

}  // namespace coldchain::check
