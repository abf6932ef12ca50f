// SPDX-License-Identifier: MIT
// Thin provisioning: the guest's disk, or a part of it, gets places of its own in an image, so that
// no write to it needs a cluster any more, or only becomes independent of what is below the image.
// What the guest reads never changes. Of the whole disk, a qcow2 image has no backing file
// afterwards; of a part, it keeps it. A qcow2 image is changed as by a pull (ops/pull.hpp), which
// this is with more places; then what lies in holes of the file gets storage (edit/storage.hpp). Of
// a raw image that is all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <coldchain/base/offsets.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::ops {

enum class Places {
  thin,       // none for zeros, and none for what is nowhere allocated
  reserve,    // for all; zeros stay marks in the tables, or storage that nothing was written to
  zero_fill,  // for all; zeros are written
};

[[nodiscard]] std::string_view to_string(Places places);

struct Allocation {
  Places places = Places::reserve;
  std::optional<GuestRange> range{};  // bytes of the guest's disk; all of it without
};

// "allocate --reserve --range 0:65536", and back: nothing for other words.
[[nodiscard]] std::string to_command(const Allocation& allocation);
[[nodiscard]] std::optional<Allocation> parse_allocation(std::string_view command);

// The clusters that the range touches: from their beginnings to their ends, or the end of the disk.
// `invalid_argument` where it is empty or reaches beyond that. All sizes in bytes.
[[nodiscard]] Result<GuestRange> whole_clusters(const Allocation& allocation,
                                                std::uint64_t cluster_size,
                                                std::uint64_t disk_size);

}  // namespace coldchain::ops
