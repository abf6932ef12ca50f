// SPDX-License-Identifier: MIT
// The format of an image by its first bytes, as QEMU's and libvirt's probes see it. A probe is a
// guess about bytes that a guest may have written: what it may be used for is the open policy's
// business.
#pragma once

#include <string_view>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::graph {

// "qcow2", "raw", or the name of a format that is recognised but not read ("vmdk", …).
[[nodiscard]] std::string_view probe_format(ByteView start);
[[nodiscard]] Result<std::string_view> probe_format(const io::File& file);

// Whether QEMU knows a driver of this name, and whether this library reads it.
[[nodiscard]] bool is_known_format(std::string_view format);
[[nodiscard]] bool is_read_format(std::string_view format);

}  // namespace coldchain::graph
