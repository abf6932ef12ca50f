// SPDX-License-Identifier: MIT
// What an image file takes of the storage. No byte changes that anybody reads, so that no side file
// is needed: whatever stops it, the image is what it was, and done again it does no more.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/io/file.hpp>

namespace coldchain::edit {

// Storage behind parts of the file, which are sorted, and a flush. The file becomes as long as they
// reach. With `writes_zeros`, what lies in holes is written, too. Stops, as `interrupted`, where
// `progress` says so.
[[nodiscard]] Result<void> give_storage(io::WritableFile& image,
                                        const std::vector<HostRange>& places, bool writes_zeros,
                                        const Progress& progress);

// Gives back what lies behind parts of the file that nothing refers to, and cuts it to `size`, if
// that is given and it is longer.
[[nodiscard]] Result<void> give_back(io::WritableFile& image, const std::vector<HostRange>& unused,
                                     std::optional<std::uint64_t> size);

}  // namespace coldchain::edit
