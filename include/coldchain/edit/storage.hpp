// SPDX-License-Identifier: MIT
// Allocates and frees the storage of an image file. No byte that is read changes, so no side file
// is needed: after an interruption the image has the same content, and a second run does nothing
// more.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::edit {

[[nodiscard]] std::uint64_t total_size(const std::vector<HostRange>& places);

// Allocates storage for `places`, which are sorted, and flushes. The file grows to the end of the
// last one. With `writes_zeros`, holes are also filled with zeros. Stops with `interrupted` if
// `progress` says so.
[[nodiscard]] Result<void> give_storage(io::WritableFile& image,
                                        const std::vector<HostRange>& places, bool writes_zeros,
                                        const Progress& progress);

// Frees the storage of unreferenced parts of the file, and truncates the file to `size`, if this is
// given and the file is longer.
[[nodiscard]] Result<void> give_back(io::WritableFile& image, const std::vector<HostRange>& unused,
                                     std::optional<std::uint64_t> size);

}  // namespace coldchain::edit
