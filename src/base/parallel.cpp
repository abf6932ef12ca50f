// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <system_error>

#include <coldchain/base/parallel.hpp>

namespace coldchain {

unsigned default_workers() {
  // More would mostly wait for the one that writes the answer, each holding windows in memory.
  constexpr unsigned enough = 8;
  return std::clamp(std::thread::hardware_concurrency(), 1U, enough);
}

std::vector<std::jthread> start_threads(unsigned count,
                                        const std::function<void(unsigned worker)>& body) {
  std::vector<std::jthread> threads;
  threads.reserve(count);
  try {
    for (unsigned worker = 0; worker < count; ++worker)
      threads.emplace_back(body, worker);
  } catch (const std::system_error&) {
    // Those that there are do the work of the others.
  }
  return threads;
}

void parallel_for(std::size_t count, unsigned workers,
                  const std::function<void(std::size_t index)>& body) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr exception;
  const auto drain = [&](unsigned /*worker*/) {
    try {
      for (std::size_t index = next++; index < count; index = next++)
        body(index);
    } catch (...) {
      const std::lock_guard lock(mutex);
      exception = std::current_exception();
      next = count;
    }
  };
  {
    const std::size_t others = std::min<std::size_t>(workers, count);
    const auto threads = start_threads(others > 1 ? static_cast<unsigned>(others - 1) : 0, drain);
    drain(0);
  }
  if (exception != nullptr)
    std::rethrow_exception(exception);
}

}  // namespace coldchain
