// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>

#include <coldchain/base/parallel.hpp>

namespace coldchain {

unsigned default_workers() {
  // More would mostly wait for the one that writes the answer, each holding windows in memory.
  constexpr unsigned enough = 8;
  return std::clamp(std::thread::hardware_concurrency(), 1U, enough);
}

void parallel_for(std::size_t count, unsigned workers,
                  const std::function<void(std::size_t index)>& body) {
  std::atomic<std::size_t> next{0};
  const auto drain = [&] {
    for (std::size_t index = next++; index < count; index = next++)
      body(index);
  };
  std::vector<std::jthread> threads;
  for (unsigned worker = 1; worker < std::min<std::size_t>(workers, count); ++worker)
    threads.emplace_back(drain);
  drain();
}

}  // namespace coldchain
