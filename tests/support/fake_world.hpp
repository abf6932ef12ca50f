// SPDX-License-Identifier: MIT
// A World that keeps what was printed. Files are the real ones, or those in `memory`.
#pragma once

#include "app.hpp"
#include "memory_files.hpp"
#include "world.hpp"

#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace coldchain::testing {

// Files of this machine, while somebody else is at work.
class WatchedFiles final : public io::FileSource {
 public:
  WatchedFiles(std::unique_ptr<io::FileSource> files, std::function<void()> before_open)
      : files_(std::move(files)), before_open_(std::move(before_open)) {}

  [[nodiscard]] Result<std::string> name_of(const std::string& operand) const override {
    return files_->name_of(operand);
  }
  [[nodiscard]] std::string operand_of(const std::string& name) const override {
    return files_->operand_of(name);
  }
  [[nodiscard]] Result<std::string> real_folder(const std::string& name) const override {
    return files_->real_folder(name);
  }
  [[nodiscard]] Result<std::unique_ptr<io::File>> open(const std::string& path) const override {
    before_open_();
    return files_->open(path);
  }

 private:
  std::unique_ptr<io::FileSource> files_;
  std::function<void()> before_open_;
};

// As the shell has it of a program that SIGINT ended.
constexpr int status_of_interrupted = 128 + SIGINT;

class FakeWorld final : public cli::World {
 public:
  std::string out_text;
  std::string err_text;
  bool terminal = false;
  std::map<std::string, std::string> variables;
  unsigned worker_count = 2;
  bool out_fails = false;
  bool interrupted = false;
  int progress_requests = 0;
  std::map<std::string, Bytes> memory;
  // Called before each file is opened: somebody else may do something then.
  std::function<void()> before_open;

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
    auto files = io::system_files(policy);
    if (!files || !before_open)
      return files;
    return std::make_unique<WatchedFiles>(std::move(*files), before_open);
  }
  [[nodiscard]] unsigned workers() const override { return worker_count; }
  void catch_interrupts() override {}
  [[nodiscard]] int stop_signal() const override { return interrupted ? SIGINT : 0; }
  [[nodiscard]] bool takes_progress_request() override {
    if (progress_requests == 0)
      return false;
    --progress_requests;
    return true;
  }
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
