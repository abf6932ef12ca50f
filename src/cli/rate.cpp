// SPDX-License-Identifier: MIT
#include "rate.hpp"

#include "sizes.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace coldchain::cli {

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

Progress at_most(std::uint64_t rate, Progress progress) {
  using Clock = std::chrono::steady_clock;
  if (rate == 0)
    return progress;
  return [rate, progress = std::move(progress), begin = Clock::now()](std::uint64_t done,
                                                                      std::uint64_t total) {
    const std::chrono::duration<double> due(static_cast<double>(done) / static_cast<double>(rate));
    while (progress(done, total)) {
      const auto left = due - (Clock::now() - begin);
      if (left.count() <= 0)
        return true;
      std::this_thread::sleep_for(
          std::min<std::chrono::duration<double>>(left, std::chrono::milliseconds(100)));
    }
    return false;
  };
}

}  // namespace coldchain::cli
