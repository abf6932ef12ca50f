// SPDX-License-Identifier: MIT
// Allocates the guest's disk, or a part of it, in an image, so that no write to it needs a new
// cluster; or only makes the image independent of the layers below. The data that the guest reads
// never changes. If the whole disk is allocated, a qcow2 image has no backing file afterwards; for
// a part, it keeps it. A qcow2 image is changed as by a pull (ops/pull.hpp) that allocates more
// clusters; then holes of the file get storage (edit/storage.hpp). A raw image only gets storage.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <coldchain/base/offsets.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::ops {

enum class Places {
  thin,       // no clusters for zeros and for unallocated ranges
  reserve,    // clusters for all; zeros are marked in the tables, or unwritten storage
  zero_fill,  // clusters for all; zeros are written
};

[[nodiscard]] std::string_view to_string(Places places);

struct Allocation {
  Places places = Places::reserve;
  std::optional<GuestRange> range{};  // bytes of the guest's disk; the default is all of it
};

// "allocate --reserve --range 0:65536", and back: nothing for other words.
[[nodiscard]] std::string to_command(const Allocation& allocation);
[[nodiscard]] std::optional<Allocation> parse_allocation(std::string_view command);

// The clusters that the range touches, completely, but not beyond the end of the disk. Error:
// `invalid_argument` if the range is empty or ends after the disk. All sizes are in bytes.
[[nodiscard]] Result<GuestRange> whole_clusters(const Allocation& allocation,
                                                std::uint64_t cluster_size,
                                                std::uint64_t disk_size);

}  // namespace coldchain::ops
