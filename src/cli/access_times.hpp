// SPDX-License-Identifier: MIT
// What a verb that only looks does where reading a file changes its access time: it says so once,
// or with --evidence refuses to read the file. Changes write to the images anyway, and have
// neither.
#pragma once

#include "world.hpp"

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include <coldchain/base/result.hpp>

namespace coldchain::cli {

// The access times of one run. Several threads may open files at once.
class AccessTimes {
 public:
  bool is_evidence = false;
  bool is_quiet = false;

  // The guard of the open policy.
  [[nodiscard]] Result<void> accept_change(const std::string& path);

  // Why this file was not read, if it was refused.
  [[nodiscard]] std::optional<Error> refusal_of(const std::string& path) const;
  // The same of any file.
  [[nodiscard]] std::optional<Error> refusal() const;

  void tell(World& world) const;

 private:
  mutable std::mutex mutex_;
  std::set<std::string> changed_;
  std::map<std::string, Error> refused_;
};

}  // namespace coldchain::cli
