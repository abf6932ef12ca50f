// SPDX-License-Identifier: MIT
// The reference to a backing file in the header, changed by one write of one sector: at each moment
// a reader finds either link. qcow2.rst, "Header", "Backing file name", "Header extensions".
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

// Nothing removes the link. `refused` where the header has no room for it, or where it could not
// change at once.
[[nodiscard]] Result<void> stage_backing_link(edit::Transaction& transaction,
                                              const qcow2::Header& header,
                                              const std::optional<BackingLink>& link);

// The link alone, whatever the guest reads then. `transaction` is of the image's file. Refused
// where the image is marked as damaged, or can have no backing file, since its data file is raw.
[[nodiscard]] Result<void> plan_relink(edit::Transaction& transaction,
                                       const std::optional<BackingLink>& link);

}  // namespace coldchain::ops
