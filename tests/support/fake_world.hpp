// SPDX-License-Identifier: MIT
// A World that keeps what was printed. Files are the real ones, or those in `memory`.
#pragma once

#include "app.hpp"
#include "memory_files.hpp"
#include "world.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace coldchain::testing {

class FakeWorld final : public cli::World {
 public:
  std::string out_text;
  std::string err_text;
  bool terminal = false;
  std::map<std::string, std::string> variables;
  unsigned worker_count = 2;
  bool out_fails = false;
  bool interrupted = false;
  std::map<std::string, Bytes> memory;

  [[nodiscard]] Result<void> out(std::string_view text) override {
    if (out_fails)
      return fail(system_error(28, "writing the output"));
    out_text += text;
    return {};
  }
  void err(std::string_view text) override { err_text += text; }
  [[nodiscard]] bool out_is_terminal() const override { return terminal; }
  [[nodiscard]] std::string environment(const std::string& name) const override {
    const auto found = variables.find(name);
    return found == variables.end() ? "" : found->second;
  }
  [[nodiscard]] bool is_directory(const std::string& path) const override {
    std::error_code ignored;
    return std::filesystem::is_directory(path, ignored);
  }
  [[nodiscard]] Result<std::unique_ptr<io::FileSource>> files(
      const io::OpenPolicy& policy) const override {
    if (!memory.empty())
      return std::make_unique<MemoryFiles>(memory);
    return io::system_files(policy);
  }
  [[nodiscard]] unsigned workers() const override { return worker_count; }
  void catch_interrupts() override {}
  [[nodiscard]] bool is_interrupted() const override { return interrupted; }
};

struct Ran {
  int status = 0;
  std::string out;
  std::string err;
};

inline Ran run_coldchain(std::vector<std::string> arguments, unsigned workers = 2) {
  FakeWorld world;
  world.worker_count = workers;
  const int status = cli::run(std::move(arguments), world);
  return {status, world.out_text, world.err_text};
}

}  // namespace coldchain::testing
