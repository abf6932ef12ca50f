// SPDX-License-Identifier: MIT
// The view of an NBD client of a chain: the meta contexts base:allocation, qemu:allocation-depth
// and qemu:joint-allocation, as numbers with nbdinfo's words. NBD protocol, "Metadata querying".
// The contexts cannot be computed from qemu-img's map: past the end of a shorter backing file, map
// counts the layer above, and NBD the short layer.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/analysis/unreadable.hpp>

namespace coldchain::analysis {

enum class Context { base_allocation, allocation_depth, joint_allocation };

[[nodiscard]] std::string_view to_string(Context context);
[[nodiscard]] std::optional<Context> context_from(std::string_view name);

struct ContextExtent {
  GuestRange guest;
  std::uint32_t value = 0;
  UnreadableRanges unreadable{};  // NBD has no word for data that cannot be read
};

[[nodiscard]] std::uint32_t context_value(Context context, const Extent& extent);

// nbdinfo's word for the value; for the joint context, ours: "hole,zero,absent", "local", …
[[nodiscard]] std::string context_description(Context context, std::uint32_t value);

// The extents of the whole disk, equal neighbours merged.
[[nodiscard]] Result<void> context_extents(
    const graph::Chain& chain, GuestRange range, Context context, unsigned workers,
    const std::function<void(const ContextExtent&)>& consumer);

}  // namespace coldchain::analysis
