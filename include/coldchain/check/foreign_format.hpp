// SPDX-License-Identifier: MIT
// Formats that other programs could see in a disk that is raw for QEMU's probe: some programs test
// less of a header, some test the end of the file. No format detection is common to all programs;
// this is a list of known signs, not a proof.
#pragma once

#include <optional>
#include <string>

#include <coldchain/base/bytes.hpp>

namespace coldchain::check {

// The number of bytes of a raw disk that are tested. Of the file of a qcow2 image, the end is
// tested.
constexpr std::size_t looked_at_start = 64 << 10;
constexpr std::size_t looked_at_end = 1023;

// The format and the programs that know it; nothing where there is no sign of one. `start` and
// `end` are the first and the last bytes of the disk.
[[nodiscard]] std::optional<std::string> foreign_format(ByteView start, ByteView end);

}  // namespace coldchain::check
