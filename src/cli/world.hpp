// SPDX-License-Identifier: MIT
// What a verb may touch of the outside: output, terminal, environment, files. The real one is the
// process; tests put another in its place and look at what was printed.
#pragma once

#include "agreement.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/open.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::cli {

class World {
 public:
  World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World() = default;

  [[nodiscard]] virtual Result<void> out(std::string_view text) = 0;
  virtual void err(std::string_view text) = 0;  // what was written to out() appears before it
  [[nodiscard]] virtual bool out_is_terminal() const = 0;
  [[nodiscard]] virtual std::string environment(const std::string& name) const = 0;
  [[nodiscard]] virtual bool is_directory(const std::string& path) const = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<io::FileSource>> files(
      const io::OpenPolicy& policy) const = 0;
  [[nodiscard]] virtual unsigned workers() const = 0;
  // From then on, SIGINT, SIGTERM and SIGHUP do not end the program, but are told by stop_signal():
  // for changes that stop at a safe point. A SIGHUP that was ignored stays ignored (nohup).
  virtual void catch_interrupts() = 0;
  // The signal that asks to stop; 0: none.
  [[nodiscard]] virtual int stop_signal() const = 0;
  // Whether SIGUSR1 has come since the last call.
  [[nodiscard]] virtual bool takes_progress_request() = 0;

  // Of `plan` and `apply`.
  std::optional<Agreement> agreement;

  [[nodiscard]] report::Sink sink() {
    return [this](std::string_view text) { return out(text); };
  }

  // "coldchain: MESSAGE" on err().
  void complain(const Error& error);
};

// The style for `--color=WHEN`: colour on a terminal unless NO_COLOR is set, UTF-8 by the locale.
[[nodiscard]] report::Style style_for(const World& world, const std::string& when);

[[nodiscard]] std::unique_ptr<World> real_world();

}  // namespace coldchain::cli
