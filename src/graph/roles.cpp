// SPDX-License-Identifier: MIT
#include "roles.hpp"

namespace coldchain::graph {

std::vector<Role> settle_roles(std::size_t count, const std::vector<RawClaim>& claims) {
  std::vector<std::vector<std::size_t>> targets(count);
  std::vector<std::size_t> pending(count);  // claims on a file whose authors are undecided
  for (const RawClaim& claim : claims) {
    targets[claim.from].push_back(claim.target);
    ++pending[claim.target];
  }
  std::vector<Role> roles(count, Role::undecided);
  std::vector<std::size_t> settled;  // whose own claims are still to be weighed
  const auto settle = [&](std::size_t file, Role role) {
    if (roles[file] != Role::undecided)
      return;
    roles[file] = role;
    settled.push_back(file);
  };
  for (std::size_t file = 0; file < count; ++file) {
    if (pending[file] == 0)
      settle(file, Role::image);
  }
  while (!settled.empty()) {
    const std::size_t author = settled.back();
    settled.pop_back();
    for (const std::size_t target : targets[author]) {
      --pending[target];
      if (roles[author] == Role::image)
        settle(target, Role::raw);
      else if (pending[target] == 0)
        settle(target, Role::image);
    }
  }
  return roles;
}

}  // namespace coldchain::graph
