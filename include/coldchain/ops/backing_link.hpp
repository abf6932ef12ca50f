// SPDX-License-Identifier: MIT
// The reference to a backing file in the header, changed with one write of one sector: at each
// moment a reader finds the old or the new link. qcow2.rst, "Header", "Backing file name", "Header
// extensions".
#pragma once

#include <optional>
#include <string>

#include <coldchain/edit/transaction.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::ops {

struct BackingLink {
  std::string name;
  std::string format;  // empty: none is recorded
};

// An empty `link` removes the link. Error: `refused` if the header has no room for it, or if one
// write cannot change it.
[[nodiscard]] Result<void> stage_backing_link(edit::Transaction& transaction,
                                              const qcow2::Header& header,
                                              const std::optional<BackingLink>& link);

// Changes only the link; the guest may read different data afterwards. `transaction` is of the
// image's file. Error: `refused` if the image is marked as damaged, or cannot have a backing file
// because its data file is raw.
[[nodiscard]] Result<void> plan_relink(edit::Transaction& transaction,
                                       const std::optional<BackingLink>& link);

}  // namespace coldchain::ops
