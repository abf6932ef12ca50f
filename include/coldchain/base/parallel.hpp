// SPDX-License-Identifier: MIT
// Work on several cores whose result does not depend on how many there are.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <coldchain/base/result.hpp>

namespace coldchain {

// As many workers as the machine has cores, but no more than eight.
[[nodiscard]] unsigned default_workers();

// Threads that run `body(worker)`, at most `count`: fewer, or none, where the system has no more.
[[nodiscard]] std::vector<std::jthread> start_threads(
    unsigned count, const std::function<void(unsigned worker)>& body);

// Runs body(index) for every index below `count`, in no particular order. What one of them throws
// (std::bad_alloc) is thrown on the calling thread, and those that have not begun do not run.
void parallel_for(std::size_t count, unsigned workers,
                  const std::function<void(std::size_t index)>& body);

// A pipeline that keeps its order. `next` hands out tasks (nothing when there are no more) and runs
// under a lock; `work(task, worker)` runs on the workers, `worker` being an index for scratch
// space; `consume` gets the products on the calling thread in the order in which the tasks were
// handed out. At most `products_per_worker` per worker exist at any time. The first error in that
// order ends it all. An exception on any thread (std::bad_alloc) ends it, too, and leaves run().
template <class Task, class Product>
class OrderedPipeline {
 public:
  using Next = std::function<std::optional<Task>()>;
  using Work = std::function<Result<Product>(const Task&, unsigned worker)>;
  using Consume = std::function<Result<void>(Product)>;

  OrderedPipeline(Next next, Work work, unsigned workers, std::size_t products_per_worker = 8)
      : next_(std::move(next)),
        work_(std::move(work)),
        workers_(workers),
        most_slots_(products_per_worker * workers) {}

  [[nodiscard]] Result<void> run(const Consume& consume) {
    if (workers_ <= 1)
      return run_inline(consume);
    // A task that is alone needs no threads: to start them may take longer than the task.
    for (int i = 0; i < 2; ++i) {
      std::optional<Task> task = next_();
      if (!task)
        return run_inline(consume);
      ahead_.push_back(std::move(*task));
    }
    std::vector<std::jthread> threads;
    // Stops the workers before they are joined, however this function is left.
    const struct Stopper {
      OrderedPipeline* pipeline;
      ~Stopper() { pipeline->stop(); }
    } stopper{this};
    threads = start_threads(workers_, [this](unsigned worker) { produce(worker); });
    return threads.empty() ? run_inline(consume) : drain(consume);
  }

 private:
  using Slot = std::optional<Result<Product>>;  // empty until the worker has finished

  std::optional<Task> take() {
    if (ahead_.empty())
      return next_();
    std::optional<Task> task = std::move(ahead_.front());
    ahead_.pop_front();
    return task;
  }

  Result<void> run_inline(const Consume& consume) {
    while (const std::optional<Task> task = take()) {
      Result<Product> product = work_(*task, 0);
      if (!product)
        return fail(std::move(product).error());
      if (Result<void> consumed = consume(std::move(*product)); !consumed)
        return consumed;
    }
    return {};
  }

  void produce(unsigned worker) {
    try {
      produce_all(worker);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      exception_ = std::current_exception();
      stopped_ = true;
      room_.notify_all();
      ready_.notify_one();
    }
  }

  void produce_all(unsigned worker) {
    std::unique_lock lock(mutex_);
    for (;;) {
      room_.wait(lock, [this] { return stopped_ || slots_.size() < most_slots_; });
      std::optional<Task> task = stopped_ ? std::nullopt : take();
      if (!task) {
        stopped_ = true;
        room_.notify_all();
        ready_.notify_one();
        return;
      }
      Slot& slot = slots_.emplace_back();  // a deque keeps references valid at both ends
      lock.unlock();
      Result<Product> product = work_(*task, worker);
      lock.lock();
      slot.emplace(std::move(product));
      if (&slot == &slots_.front())
        ready_.notify_one();  // no thread waits for the others
    }
  }

  Result<void> drain(const Consume& consume) {
    std::unique_lock lock(mutex_);
    for (;;) {
      ready_.wait(lock, [this] {
        return exception_ != nullptr || (slots_.empty() ? stopped_ : slots_.front().has_value());
      });
      if (exception_ != nullptr)
        std::rethrow_exception(exception_);
      if (slots_.empty())
        return {};
      Result<Product> product = std::move(*slots_.front());
      slots_.pop_front();
      if (slots_.size() == most_slots_ / 2)
        room_.notify_all();  // not for every single product: a wake-up costs more than a product
      lock.unlock();
      if (!product)
        return fail(std::move(product).error());
      if (Result<void> consumed = consume(std::move(*product)); !consumed)
        return consumed;
      lock.lock();
    }
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    room_.notify_all();
  }

  Next next_;
  Work work_;
  unsigned workers_;
  std::size_t most_slots_;
  std::mutex mutex_;
  std::condition_variable room_;   // for the workers: fewer products wait than may
  std::condition_variable ready_;  // for the consumer: the next product, or the end
  std::deque<Slot> slots_;
  std::deque<Task> ahead_;  // taken from next_ before the threads were started
  bool stopped_ = false;
  std::exception_ptr exception_;  // of a worker
};

}  // namespace coldchain
