// SPDX-License-Identifier: MIT
// `tree --watermark` for people, and `tree --output=domstats`: the block statistics of libvirt,
// with the names and the text form of 'virsh domstats --block --backing'.
#pragma once

#include <cstddef>
#include <string_view>

#include <coldchain/report/sink.hpp>
#include <coldchain/report/tree_report.hpp>

namespace coldchain::report {

// The layers that are short of space, a line each. Nothing where there is none.
[[nodiscard]] Result<void> write_watermarks(const Tree& tree, const Style& style, const Sink& sink);

// The statistics of all layers of all trees; `names` are those of the disks, and relative paths are
// relative to `folder`.
[[nodiscard]] Result<void> write_domstats(const std::vector<std::string>& names,
                                          const std::vector<Tree>& trees, std::string_view folder,
                                          const Sink& sink);

}  // namespace coldchain::report
