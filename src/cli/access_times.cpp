// SPDX-License-Identifier: MIT
#include "access_times.hpp"

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

Result<void> AccessTimes::accept_change(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (!is_evidence) {
    changed_.insert(path);
    return {};
  }
  Error error{ErrorCode::refused,
              "reading it would change its access time, and --evidence forbids that; run the "
              "command as its owner or as root, or mount the file system read-only or with noatime",
              0};
  refused_.emplace(path,
                   with_context(error, fmt::format("Could not open '{}'", to_terminal(path))));
  return fail(std::move(error));
}

std::optional<Error> AccessTimes::refusal_of(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = refused_.find(path);
  return found == refused_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<Error> AccessTimes::refusal() const {
  const std::lock_guard lock(mutex_);
  return refused_.empty() ? std::nullopt : std::optional(refused_.begin()->second);
}

void AccessTimes::tell(World& world) const {
  if (changed_.empty() || is_quiet)
    return;
  const std::string first = to_terminal(*changed_.begin());
  const std::string what =
      changed_.size() == 1
          ? fmt::format("the access time of '{}' may change, because you are not its owner", first)
          : fmt::format(
                "the access times of '{}' and others may change, because you are not "
                "their owner",
                first);
  world.complain(
      {ErrorCode::permission_denied, fmt::format("note: {}; --evidence refuses instead", what), 0});
}

}  // namespace coldchain::cli
