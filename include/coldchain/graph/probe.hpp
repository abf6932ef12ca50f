// SPDX-License-Identifier: MIT
// The format of an image by its first bytes and its name, as QEMU's probe sees it. A probe is a
// guess from bytes that a guest may have written; the open policy decides how far it is trusted.
#pragma once

#include <string_view>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::graph {

// The number of bytes that decide. A shorter file is extended with zeros.
constexpr std::size_t probed_bytes = 512;

// "qcow2", "raw", or the name of a format that is recognised but not read ("vmdk", …). `name` is
// the file's name as it was given; empty where QEMU sees none, as with json: names.
[[nodiscard]] std::string_view probe_format(ByteView start, std::string_view name);
[[nodiscard]] Result<std::string_view> probe_format(const io::File& file, std::string_view name);

// Whether QEMU knows a driver of this name, and whether this library reads it.
[[nodiscard]] bool is_known_format(std::string_view format);
[[nodiscard]] bool is_read_format(std::string_view format);

}  // namespace coldchain::graph
