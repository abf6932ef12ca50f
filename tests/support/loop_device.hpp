// SPDX-License-Identifier: MIT
// Block devices for tests.
#pragma once

#include "process.hpp"

#include <string>

namespace coldchain::testing {

// A loop device over a file, as long as this lives; no path where the system does not give one.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file) {
    const auto made = run_in("/", "losetup --find --show " + quoted(file));
    if (made.status == 0)
      path_ = made.out.substr(0, made.out.find('\n'));
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() {
    if (!path_.empty())
      (void)run_in("/", "losetup --detach " + path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace coldchain::testing
