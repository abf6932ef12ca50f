// SPDX-License-Identifier: MIT
// -p and -r: how far a verb is, and how fast it may copy. The same object answers SIGUSR1, and
// stops the verb where a signal asks for that.
#pragma once

#include "command_line.hpp"
#include "world.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include <coldchain/base/progress.hpp>
#include <coldchain/base/result.hpp>

namespace coldchain::cli {

// What each verb that copies is asked for.
struct CopyOptions {
  bool shows_progress = false;
  std::string rate = "0";  // bytes per second; 0: as fast as it goes
};

void add_progress_option(CommandLine app, bool& shows_progress);
// -r and -p.
void add_copy_options(CommandLine app, CopyOptions& copy);

// Bytes per second; "0": as fast as it goes.
[[nodiscard]] Result<std::uint64_t> parse_rate(const std::string& text);

// What is counted.
enum class ProgressUnit { bytes, images };

// The progress of one verb, in one part or in several that follow each other. A line looks as
// qemu-img's, "    (12.34/100%)", and goes on with bytes, rate and the time that is left.
class ProgressMeter {
 public:
  ProgressMeter(World& world, bool is_shown, std::uint64_t rate = 0,
                ProgressUnit unit = ProgressUnit::bytes)
      : world_(world), is_shown_(is_shown), rate_(rate), unit_(unit) {}
  ProgressMeter(const ProgressMeter&) = delete;
  ProgressMeter& operator=(const ProgressMeter&) = delete;
  ~ProgressMeter();  // ends a line that is open

  // For an operation; refers to the meter. Where the rate is limited, it waits.
  [[nodiscard]] Progress progress();

  // So many bytes come in later parts.
  void expect(std::uint64_t later) { later_ = later; }
  // The next operation is another part.
  void begin_part();
  // All is done: shows that, if anything is to be shown.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  bool note(const ProgressPoint& part);
  bool keep_to_rate(const ProgressPoint& point);
  void answer_request(const ProgressPoint& point);
  void show(const ProgressPoint& point, char end);
  [[nodiscard]] std::string text_of(const ProgressPoint& point) const;

  World& world_;
  bool is_shown_;
  std::uint64_t rate_;
  ProgressUnit unit_;
  ProgressPoint before_;  // the parts that are done
  ProgressPoint last_;    // of the current part
  std::uint64_t later_ = 0;
  std::optional<Clock::time_point> begin_;
  Clock::time_point shown_;
  std::size_t open_columns_ = 0;  // of a line that the next one replaces
};

}  // namespace coldchain::cli
