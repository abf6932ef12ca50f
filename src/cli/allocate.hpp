// SPDX-License-Identifier: MIT
// What an allocation is more than a pull.
#pragma once

#include "change.hpp"

#include <string>
#include <vector>

#include <coldchain/base/progress.hpp>
#include <coldchain/ops/allocate.hpp>

namespace coldchain::cli {

void add_range_option(CommandLine app, std::optional<std::string>& range);
// OFFSET:LENGTH, with qemu-img's suffixes.
[[nodiscard]] Result<GuestRange> parse_range(const std::string& text);

// `refused` where the file system has no room for so many more bytes of an image file.
[[nodiscard]] Result<void> check_storage(const ChangeTarget& target, std::uint64_t bytes);

// The end of an allocation. Stopped, the same command goes on.
[[nodiscard]] Result<void> give_storage(ChangeTarget& target, const std::vector<HostRange>& places,
                                        ops::Places how, const Progress& progress);

// `allocate` below `plan`.
void add_allocate_plan(CommandLine plan, World& world, int& status);

}  // namespace coldchain::cli
