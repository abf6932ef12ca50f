// SPDX-License-Identifier: MIT
// Which files of a folder are images, and which are only the bytes of a guest. A guest can write a
// qcow2 header into its raw disk; what that header says must not decide anything. So a file is
// believed to be an image only if no believed image says that it is raw, or holds its guest data.
#pragma once

#include <cstddef>
#include <vector>

namespace coldchain::graph {

enum class Role {
  image,      // believed: what its header names is looked at
  raw,        // an image that is believed says so
  undecided,  // each of a ring of files says of the next that it is raw
};

// File `from` says that file `target` is raw.
struct RawClaim {
  std::size_t from = 0;
  std::size_t target = 0;
};

// The roles of files 0 … count - 1. The result does not depend on the order of the claims.
[[nodiscard]] std::vector<Role> settle_roles(std::size_t count,
                                             const std::vector<RawClaim>& claims);

}  // namespace coldchain::graph
