// SPDX-License-Identifier: MIT
// Who owns each byte of an image file, from what a check has gathered: every byte is in exactly one
// range, and their sizes add up to the size of the file.
#pragma once

#include <functional>
#include <vector>

#include <coldchain/check/check.hpp>

namespace coldchain::check {

enum class Use {
  structure,   // a structure of the image; which one is said beside it
  data,        // guest data in standard clusters
  compressed,  // clusters that hold compressed guest data
  leaked,      // counted, but nothing refers to it
  free,        // neither counted nor referred to
};

struct LayoutRange {
  HostRange host;
  Use use{};
  finding::Structure structure{};  // where `use` is structure
};

// Bytes per use, structures apart.
struct LayoutTotal {
  Use use{};
  finding::Structure structure{};
  std::uint64_t bytes = 0;
};

[[nodiscard]] std::string_view to_string(const LayoutRange& range);
[[nodiscard]] std::string_view to_string(const LayoutTotal& total);

// Hands out the ranges in order, neighbours of the same use merged, and returns the totals. Where
// structures overlap, the one that begins first has the cluster. `cluster_size` and `file_size` are
// of the image that was checked.
[[nodiscard]] std::vector<LayoutTotal> layout(
    const CheckResult& result, std::uint64_t cluster_size, std::uint64_t file_size,
    const std::function<void(const LayoutRange&)>& consume);

}  // namespace coldchain::check
