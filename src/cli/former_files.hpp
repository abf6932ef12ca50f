// SPDX-License-Identifier: MIT
// Files as they were before a change that is pending in some of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <coldchain/io/open.hpp>
#include <coldchain/io/overlay_file.hpp>

namespace coldchain::cli {

class FormerFiles final : public io::FileSource {
 public:
  explicit FormerFiles(const io::FileSource& files) : files_(files) {}

  void add(std::unique_ptr<io::OverlayFile> former) { former_.push_back(std::move(former)); }

  [[nodiscard]] Result<std::unique_ptr<io::File>> open(const std::string& path) const override;
  [[nodiscard]] Result<io::Location> locate(const std::string& path) const override {
    return files_.locate(path);
  }
  [[nodiscard]] Result<io::WritableTarget> open_writable(const std::string& path) const override {
    return files_.open_writable(path);
  }

 private:
  const io::FileSource& files_;
  std::vector<std::unique_ptr<io::OverlayFile>> former_;
};

}  // namespace coldchain::cli
