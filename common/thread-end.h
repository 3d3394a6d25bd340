// Starting threads where the system has few, and waiting until it has taken one off its books: pthread_join returns
// some microseconds before that, and a limit on threads (a container's pids limit) counts the thread until then.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#include <csignal>
#endif

namespace parvis {

// A refusal may be about threads that have just ended: it is tried again for some milliseconds.
template <class Body>
std::thread startThread(Body body) {
  for (int tries = 0;; tries++) {
    try {
      return std::thread(body);
    } catch (const std::system_error&) {
      if (tries == 10) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

class ThreadEnd {
 public:
  // By the thread itself, first of all.
  void begin() {
#if defined(__linux__)
    id_ = static_cast<int>(syscall(SYS_gettid));
#endif
  }
  // After it was joined; gives up after 20 ms, since the number may belong to a new thread by then.
  void wait() const {
#if defined(__linux__)
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    while (id_ != 0 && syscall(SYS_tgkill, getpid(), id_.load(), 0) == 0 && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
#endif
  }

 private:
  std::atomic<int> id_{0};
};

}  // namespace parvis
