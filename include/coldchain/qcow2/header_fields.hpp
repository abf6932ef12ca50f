// SPDX-License-Identifier: MIT
// Every field of a qcow2 header and of its extensions, one by one, with its raw value and whether
// it is valid. For images that cannot be opened: unlike decode_header, a wrong field ends nothing.
// qcow2.rst, "Header", "Additional fields", "Header extensions". Reads the first cluster alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::qcow2 {

struct HeaderField {
  std::string name;          // as in the specification; of an extension, its name there
  std::uint64_t offset = 0;  // in the file
  std::uint64_t length = 0;  // bytes
  std::uint64_t value = 0;   // of a number; of an extension, its type
  bool is_number = true;     // otherwise the content counts
  std::string content{};     // the bytes of a name or of an extension's data, at most 1,024
  std::string problem{};     // why it is not valid; empty if it is
};

// Fails only if the file cannot be read.
[[nodiscard]] Result<std::vector<HeaderField>> header_fields(const io::File& file);

}  // namespace coldchain::qcow2
