// SPDX-License-Identifier: MIT
// The owner of each byte of an image file, from the results of a check. Every byte is in exactly
// one range, and the sizes of the ranges add up to the size of the file.
#pragma once

#include <functional>
#include <vector>

#include <coldchain/check/check.hpp>

namespace coldchain::check {

enum class Use {
  structure,   // a structure of the image; `structure` names it
  data,        // guest data in standard clusters
  compressed,  // clusters that hold compressed guest data
  leaked,      // has a refcount, but nothing refers to it
  unknown,     // nothing refers to it, and its refcount cannot be read
  free,        // no refcount and no reference
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

// Returns the totals, and passes the ranges to `consume` in order, with neighbours of the same use
// merged. If structures overlap, the one that begins first has the cluster. `cluster_size` and
// `file_size` are those of the checked image.
[[nodiscard]] std::vector<LayoutTotal> layout(
    const CheckResult& result, std::uint64_t cluster_size, std::uint64_t file_size,
    const std::function<void(const LayoutRange&)>& consume);

}  // namespace coldchain::check
