#include "ledger.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "parvis/backend.h"
#include "platform.h"

#if !defined(_WIN32)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace parvis::cpu {

namespace {

using Clock = std::chrono::steady_clock;

struct Promised {
  size_t bytes = 0, untouched = 0;
  Clock::time_point seen{};  // when `untouched` was true; less may be untouched since
};

struct Ledger {
  std::mutex mutex;
  std::unordered_map<void*, Promised> promises;
};

// Never destroyed: threads may free memory while the process ends.
Ledger& ledger() {
  static Ledger& one = *new Ledger;
  return one;
}

size_t untouchedBytes(void* memory, size_t bytes) {
#if defined(_WIN32)
  (void)memory, (void)bytes;
  return 0;  // the system counts committed memory by itself
#else
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t pages = (bytes + page - 1) / page;
  constexpr size_t together = 1 << 16;
  size_t touched = 0;
#if defined(__linux__)
  std::vector<unsigned char> resident(std::min(pages, together));
#else
  std::vector<char> resident(std::min(pages, together));
#endif
  for (size_t first = 0; first < pages; first += together) {
    const size_t count = std::min(together, pages - first);
    if (mincore(static_cast<char*>(memory) + first * page, count * page, resident.data()) != 0) return 0;
    for (size_t i = 0; i < count; i++) touched += resident[i] & 1;
  }
  return (pages - touched) * page;
#endif
}

// Of all promises; looks again at those last looked at more than 20 ms ago. Under the mutex.
uint64_t untouchedOfAll(Ledger& l) {
  const Clock::time_point now = Clock::now();
  uint64_t sum = 0;
  for (auto& [memory, p] : l.promises) {
    if (p.untouched > 0 && now - p.seen > std::chrono::milliseconds(20)) {
      p.untouched = untouchedBytes(memory, p.bytes);
      p.seen = now;
    }
    sum += p.untouched;
  }
  return sum;
}

}  // namespace

void* promise(size_t bytes, const std::function<void*(uint64_t promised)>& take) {
  if (bytes < leastPromised) return take(0);
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  void* const memory = take(untouchedOfAll(l));
  if (memory) l.promises[memory] = {bytes, bytes, Clock::now()};
  return memory;
}

void forget(void* memory) {
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  l.promises.erase(memory);
}

uint64_t promisedMemory() {
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  return untouchedOfAll(l);
}

}  // namespace parvis::cpu

namespace parvis {

uint64_t freeMemory() {
  const uint64_t available = cpu::availableMemory();
  if (available == 0) return 0;
  const uint64_t promised = cpu::promisedMemory();
  return available > promised ? available - promised : 1;
}

}  // namespace parvis
