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

  void add(std::unique_ptr<io::File> former) { former_.push_back(std::move(former)); }

  [[nodiscard]] Result<std::string> name_of(const std::string& operand) const override {
    return files_.name_of(operand);
  }
  [[nodiscard]] Result<std::string> real_folder(const std::string& name) const override {
    return files_.real_folder(name);
  }
  [[nodiscard]] std::string operand_of(const std::string& name) const override {
    return files_.operand_of(name);
  }
  [[nodiscard]] Result<std::unique_ptr<io::File>> open(const std::string& path) const override;

 private:
  const io::FileSource& files_;
  std::vector<std::unique_ptr<io::File>> former_;
};

}  // namespace coldchain::cli
