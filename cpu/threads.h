// Our own thread pool: the work of one token step is some 170 parallel sections of tens of microseconds, so
// workers spin for a moment before they park, and tasks are handed out by one atomic counter. A section ends when its
// tasks are done, not when all workers have looked at it: on a busy machine a worker that the system has put aside
// is not waited for unless it holds a task. Which thread runs a task never changes a result. No OpenMP runtime, no
// globals: a pool a backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "../common/thread-end.h"

namespace parvis::cpu {

class Threads {
 public:
  // The calling thread is one of them. Where the system refuses some: throws, or (`fewer`) goes on with those that it
  // grants.
  explicit Threads(int count, bool fewer = false);
  ~Threads();
  int count() const { return static_cast<int>(workers_.size()) + 1; }

  // body(task, thread) for task in [0, tasks); returns when all are done. One caller at a time.
  template <class Body>
  void run(int tasks, Body&& body) {
    using B = std::remove_reference_t<Body>;
    runErased(
        tasks, [](void* b, int task, int thread) { (*static_cast<B*>(b))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void*, int, int);
  void runErased(int tasks, Call call, void* body);
  void work(int thread);
  void drain(int thread);
  void end();

  std::vector<std::thread> workers_;
  std::vector<ThreadEnd> ends_;  // of the workers
  // Written before the section's tickets, read only by holders of a valid ticket, which the section waits for.
  Call call_ = nullptr;
  void* body_ = nullptr;
  // A ticket is self-contained: number of tasks above, next task below. A late worker that draws from a section
  // already handed out sees a task number that is too large, whatever has been written since.
  static constexpr int taskBits = 32;
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> done_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace parvis::cpu
