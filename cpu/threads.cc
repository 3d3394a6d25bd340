#include "threads.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace parvis::cpu {

namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or for about 50 microseconds; true where done.
template <class Done>
bool spin(Done done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  do {
    for (int i = 0; i < 32; i++) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

Threads::Threads(int count, bool fewer) : ends_(static_cast<size_t>(count)) {
  try {
    workers_.reserve(static_cast<size_t>(count));
    for (int i = 1; i < count; i++)
      workers_.push_back(startThread([this, i] {
        ends_[static_cast<size_t>(i)].begin();
        work(i);
      }));
  } catch (const std::exception&) {  // the system has no more threads: end those that run, or their destructors would
                                     // end the process
    if (fewer) return;
    end();
    throw;
  }
}

Threads::~Threads() { end(); }

void Threads::end() {
  stop_ = true;
  round_.fetch_add(1);
  round_.notify_all();
  for (auto& w : workers_) w.join();
  for (size_t i = 1; i <= workers_.size(); i++) ends_[i].wait();
}

void Threads::drain(int thread) {
  for (;;) {
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    const int task = static_cast<int>(ticket & 0xffffffffu), tasks = static_cast<int>(ticket >> taskBits);
    if (task >= tasks) return;
    call_(body_, task, thread);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) done_.notify_one();
  }
}

void Threads::runErased(int tasks, Call call, void* body) {
  if (tasks <= 0) return;
  if (workers_.empty() || tasks == 1) {
    for (int i = 0; i < tasks; i++) call(body, i, 0);
    return;
  }
  call_ = call;
  body_ = body;
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(static_cast<uint64_t>(tasks) << taskBits, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  drain(0);
  const auto finished = [&] { return done_.load(std::memory_order_acquire) == tasks; };
  if (spin(finished)) return;
  for (int done; (done = done_.load(std::memory_order_acquire)) != tasks;) done_.wait(done, std::memory_order_acquire);
}

void Threads::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    const auto changed = [&] { return round_.load(std::memory_order_acquire) != seen; };
    if (!spin(changed)) round_.wait(seen, std::memory_order_acquire);
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (round == seen) continue;
    seen = round;
    if (stop_) return;
    drain(thread);
  }
}

}  // namespace parvis::cpu
