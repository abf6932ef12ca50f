// SPDX-License-Identifier: MIT
// What programs other than QEMU could take a disk for that QEMU's probe takes for raw: some look at
// less of a header, some at the end of the file. A disk has no format that all agree on; this is a
// list of known signs, not a proof.
#pragma once

#include <optional>
#include <string>

#include <coldchain/base/bytes.hpp>

namespace coldchain::check {

// So much of a raw disk is looked at.
constexpr std::size_t looked_at_start = 64 << 10;
constexpr std::size_t looked_at_end = 1023;

// The format and the programs that know it; nothing where there is no sign of one. `start` and
// `end` are the first and the last bytes of the disk.
[[nodiscard]] std::optional<std::string> foreign_format(ByteView start, ByteView end);

}  // namespace coldchain::check
