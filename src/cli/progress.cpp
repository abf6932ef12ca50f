// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include "sizes.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

using Seconds = std::chrono::duration<double>;

// A person reads no faster.
constexpr std::chrono::milliseconds between_lines(100);
// After less time, the rate says nothing about the time that is left.
constexpr Seconds least_time(0.5);

double percent_of(const ProgressPoint& point) {
  if (point.done >= point.total)
    return 100;
  return 100.0 * static_cast<double>(point.done) / static_cast<double>(point.total);
}

// "1:02:03", "2:03".
std::string to_clock(double seconds) {
  constexpr double most = 1e9;
  const auto whole = static_cast<std::uint64_t>(std::llround(std::min(seconds, most)));
  const std::uint64_t hours = whole / 3600;
  const std::uint64_t minutes = whole / 60 % 60;
  return hours != 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60)
                    : fmt::format("{}:{:02}", minutes, whole % 60);
}

}  // namespace

void add_progress_option(CommandLine app, bool& shows_progress) {
  app.add_flag("-p,--progress", shows_progress, "Show the progress");
}

void add_copy_options(CommandLine app, CopyOptions& copy) {
  app.add_option("-r", copy.rate, "Copy at most RATE bytes per second").type_name("RATE");
  add_progress_option(app, copy.shows_progress);
}

Result<std::uint64_t> parse_rate(const std::string& text) {
  if (text == "0")
    return std::uint64_t{0};
  const Result<std::uint64_t> rate = parse_size("rate", text);
  if (!rate)
    return fail(ErrorCode::invalid_argument,
                "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n"
                "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
  return *rate;
}

ProgressMeter::~ProgressMeter() {
  if (open_columns_ != 0)
    world_.err("\n");
}

Progress ProgressMeter::progress() {
  return [this](const ProgressPoint& part) { return note(part); };
}

void ProgressMeter::begin_part() {
  before_.done += last_.total;
  before_.found += last_.found + (last_.total - std::min(last_.total, last_.done));
  last_ = {};
  later_ = 0;
}

void ProgressMeter::finish() {
  if (!is_shown_)
    return;
  const std::uint64_t total = before_.done + last_.total + later_;
  show({total, total, before_.found + last_.found}, '\n');
}

bool ProgressMeter::note(const ProgressPoint& part) {
  last_ = part;
  const ProgressPoint point = {before_.done + part.done, before_.done + part.total + later_,
                               before_.found + part.found};
  const Clock::time_point now = Clock::now();
  if (!begin_)
    begin_ = now;
  answer_request(point);
  const bool is_due = open_columns_ == 0 || now - shown_ >= between_lines;
  if (is_shown_ && is_due) {
    shown_ = now;
    show(point, '\r');
  }
  return keep_to_rate(point);
}

bool ProgressMeter::keep_to_rate(const ProgressPoint& point) {
  if (rate_ == 0)
    return world_.stop_signal() == 0;
  const Seconds due(static_cast<double>(point.done - point.found) / static_cast<double>(rate_));
  while (world_.stop_signal() == 0) {
    answer_request(point);
    const Seconds left = due - (Clock::now() - *begin_);
    if (left.count() <= 0)
      return true;
    std::this_thread::sleep_for(std::min<Seconds>(left, between_lines));
  }
  return false;
}

void ProgressMeter::answer_request(const ProgressPoint& point) {
  if (world_.takes_progress_request())
    show(point, '\n');
}

void ProgressMeter::show(const ProgressPoint& point, char end) {
  std::string line = text_of(point);
  const std::size_t columns = line.size();
  if (columns < open_columns_)
    line.append(open_columns_ - columns, ' ');
  open_columns_ = end == '\r' ? columns : 0;
  world_.err(line + end);
}

std::string ProgressMeter::text_of(const ProgressPoint& point) const {
  std::string text = fmt::format("    ({:.2f}/100%)", percent_of(point));
  if (point.total == 0)
    return text;
  text += unit_ == ProgressUnit::images
              ? fmt::format("  {} of {} images", point.done, point.total)
              : fmt::format("  {} of {}", human_size(point.done), human_size(point.total));
  const Seconds elapsed = begin_ ? Clock::now() - *begin_ : Seconds(0);
  const std::uint64_t worked = point.done - std::min(point.done, point.found);
  if (worked == 0 || elapsed < least_time)
    return text;
  const double rate = static_cast<double>(worked) / elapsed.count();
  if (unit_ == ProgressUnit::bytes)
    text += fmt::format(", {}/s", human_size(static_cast<std::uint64_t>(rate)));
  if (point.done < point.total)
    text +=
        fmt::format(", {} left", to_clock(static_cast<double>(point.total - point.done) / rate));
  return text;
}

}  // namespace coldchain::cli
