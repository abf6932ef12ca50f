// SPDX-License-Identifier: MIT
#include <atomic>
#include <new>
#include <string>

#include <coldchain/base/parallel.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

namespace {

// Squares 0..count-1; the task `failing` fails.
Result<void> squares(unsigned workers, int count, int failing, std::vector<int>& consumed) {
  int next = 0;
  OrderedPipeline<int, int> pipeline(
      [&]() -> std::optional<int> { return next < count ? std::optional(next++) : std::nullopt; },
      [&](const int& task, unsigned) -> Result<int> {
        if (task == failing)
          return fail(ErrorCode::io_error, "task " + std::to_string(task));
        return task * task;
      },
      workers);
  return pipeline.run([&](int product) -> Result<void> {
    consumed.push_back(product);
    return {};
  });
}

}  // namespace

TEST_CASE("OrderedPipeline: products come in the order of the tasks with any number of workers") {
  for (const unsigned workers : {1U, 2U, 7U}) {
    std::vector<int> consumed;
    REQUIRE(squares(workers, 500, -1, consumed));
    REQUIRE(consumed.size() == 500);
    for (int i = 0; i < 500; ++i)
      CHECK(consumed[static_cast<std::size_t>(i)] == i * i);
  }
}

TEST_CASE(
    "OrderedPipeline: the first error in order ends it after everything before was consumed") {
  for (const unsigned workers : {1U, 3U}) {
    std::vector<int> consumed;
    const Result<void> outcome = squares(workers, 500, 100, consumed);
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().message == "task 100");
    CHECK(consumed.size() == 100);
  }
}

TEST_CASE("OrderedPipeline: a consumer that fails stops the workers") {
  OrderedPipeline<int, int> pipeline([]() -> std::optional<int> { return 1; },
                                     [](const int& task, unsigned) -> Result<int> { return task; },
                                     2);
  const Result<void> outcome =
      pipeline.run([](int) -> Result<void> { return fail(ErrorCode::io_error, "full"); });
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().message == "full");
}

TEST_CASE("OrderedPipeline: where memory ends on any thread, that is thrown on the calling one") {
  for (const unsigned workers : {1U, 3U}) {
    OrderedPipeline<int, int> work([i = 0]() mutable { return std::optional(i++); },
                                   [](const int& task, unsigned) -> Result<int> {
                                     if (task == 50)
                                       throw std::bad_alloc();
                                     return task;
                                   },
                                   workers);
    const auto consume = [](int) -> Result<void> { return {}; };
    CHECK_THROWS_AS((void)work.run(consume), std::bad_alloc);
    OrderedPipeline<int, int> next([]() -> std::optional<int> { throw std::bad_alloc(); },
                                   [](const int& task, unsigned) -> Result<int> { return task; },
                                   workers);
    CHECK_THROWS_AS((void)next.run(consume), std::bad_alloc);
  }
}

TEST_CASE("parallel_for: where memory ends on any thread, that is thrown on the calling one") {
  for (const unsigned workers : {1U, 4U}) {
    std::atomic<int> visits = 0;
    const auto visit = [&](std::size_t i) {
      ++visits;
      if (i == 100)
        throw std::bad_alloc();
    };
    CHECK_THROWS_AS(parallel_for(1 << 20, workers, visit), std::bad_alloc);
    CHECK(visits < 1 << 20);
  }
}

TEST_CASE("parallel_for: visits every index once") {
  std::vector<std::atomic<int>> visits(1000);
  parallel_for(visits.size(), 4, [&](std::size_t i) { ++visits[i]; });
  for (const auto& count : visits)
    CHECK(count == 1);
  parallel_for(0, 4, [](std::size_t) { FAIL("there is nothing to visit"); });
}
