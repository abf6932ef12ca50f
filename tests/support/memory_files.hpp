// SPDX-License-Identifier: MIT
// Files that lie in memory under names: the same sizes and times on every machine.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <coldchain/io/memory_file.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::testing {

class MemoryFiles final : public io::FileSource {
 public:
  explicit MemoryFiles(std::map<std::string, Bytes> files) : files_(std::move(files)) {}

  [[nodiscard]] Result<std::string> name_of(const std::string& operand) const override {
    return operand;
  }
  [[nodiscard]] Result<std::string> real_folder(const std::string& /*name*/) const override {
    return fail(ErrorCode::not_found, "files in memory lie in no folder");
  }
  [[nodiscard]] std::string operand_of(const std::string& name) const override { return name; }

  [[nodiscard]] Result<std::unique_ptr<io::File>> open(const std::string& path) const override {
    const auto found = files_.find(path);
    if (found == files_.end())
      return fail(system_error(2, ""));
    const auto number = static_cast<std::uint64_t>(std::distance(files_.begin(), found));
    return std::make_unique<io::MemoryFile>(found->second, number);
  }

 private:
  std::map<std::string, Bytes> files_;
};

}  // namespace coldchain::testing
