// SPDX-License-Identifier: MIT
#include "world.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace coldchain::cli {

namespace {

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail(system_error(errno, "writing the output"));
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

// A signal's handler reaches nothing else.
volatile std::sig_atomic_t stopped_by = 0;
volatile std::sig_atomic_t is_progress_wanted = 0;

bool is_ignored(int number) {
  struct sigaction action = {};
  return ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

// Writes through: reports come in large pieces already.
class RealWorld final : public World {
 public:
  RealWorld() {
    // A large map goes through a pipe in fewer steps; where the system refuses, it is only slower.
    (void)::fcntl(STDOUT_FILENO, F_SETPIPE_SZ, 1 << 20);
    // It asks for the progress, and must not end a verb that has none.
    (void)std::signal(SIGUSR1, [](int) { is_progress_wanted = 1; });
  }
  [[nodiscard]] Result<void> out(std::string_view text) override {
    return write_all(STDOUT_FILENO, text);
  }
  void err(std::string_view text) override { (void)write_all(STDERR_FILENO, text); }
  [[nodiscard]] bool out_is_terminal() const override { return ::isatty(STDOUT_FILENO) == 1; }
  [[nodiscard]] std::string environment(const std::string& name) const override {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? "" : value;
  }
  [[nodiscard]] bool is_directory(const std::string& path) const override {
    std::error_code ignored;
    return std::filesystem::is_directory(path, ignored);
  }
  [[nodiscard]] Result<std::unique_ptr<io::FileSource>> files(
      const io::OpenPolicy& policy) const override {
    return io::system_files(policy);
  }
  [[nodiscard]] unsigned workers() const override { return default_workers(); }
  void catch_interrupts() override {
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
      if (number != SIGHUP || !is_ignored(number))
        (void)std::signal(number, [](int received) { stopped_by = received; });
    }
  }
  [[nodiscard]] int stop_signal() const override { return stopped_by; }
  [[nodiscard]] bool takes_progress_request() override {
    const bool is_wanted = is_progress_wanted != 0;
    is_progress_wanted = 0;
    return is_wanted;
  }
};

bool is_utf8_locale(const World& world) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string value = world.environment(name);
    if (value.empty())
      continue;
    std::transform(value.begin(), value.end(), value.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
    return value.find("UTF-8") != std::string::npos || value.find("UTF8") != std::string::npos;
  }
  return false;
}

}  // namespace

void World::complain(const Error& error) {
  err(fmt::format("coldchain: {}\n", to_terminal_lines(error.message)));
}

report::Style style_for(const World& world, const std::string& when) {
  report::Style style;
  const bool wanted = world.out_is_terminal() && world.environment("NO_COLOR").empty();
  style.color = when == "always" || (when == "auto" && wanted);
  style.utf8 = is_utf8_locale(world);
  return style;
}

std::unique_ptr<World> real_world() {
  return std::make_unique<RealWorld>();
}

}  // namespace coldchain::cli
