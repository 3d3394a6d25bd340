// What the files of the simulated CUDA runtime share: the machine that PARVIS_SIMT describes, its streams, and how
// every call begins. All of it under one lock. Nothing here is ever destroyed: threads may outlive main().
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "state.h"

namespace simt {

struct Operation {
  std::function<cudaError_t()> run;
  bool overlaps;  // with operations of the same kind
  template <class F>
  Operation(F run, bool overlaps = false) : run(std::move(run)), overlaps(overlaps) {}
};
struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  std::vector<Operation> recorded;
  bool invalid = false;
};
struct Range {
  size_t bytes;
  int device;
  bool pinned;
};
struct Device {
  std::string name;
  int major = 0, minor = 0, processors = 0;
  size_t shared = 0;  // a block's most
  size_t memory = 0, used = 0;
  cudaError_t broken = cudaSuccess;  // by a kernel, for good
  int open = 0;                      // operations under way that may touch its memory
};

}  // namespace simt

struct SimtStream {
  int device;
  std::thread::id owner;
  std::deque<simt::Operation> queue;
  std::unique_ptr<simt::Capture> capture;
};
// Numbers of records: the last one enqueued, the last one reached.
struct SimtEvent {
  int device;
  bool timing;
  struct Progress {
    uint64_t enqueued = 0, reached = 0;
    std::chrono::steady_clock::time_point when;
  };
  std::shared_ptr<Progress> progress = std::make_shared<Progress>();
  SimtStream* stream = nullptr;
};
struct SimtGraph {
  std::vector<simt::Operation> operations;
};
struct SimtGraphExec {
  std::vector<simt::Operation> operations;
};

namespace simt {

struct Machine {
  std::recursive_mutex lock;
  std::vector<Device> devices;
  int driver = 13000, runtime = 13000;
  uint64_t ahead = 0, failMalloc = 0, failHostAlloc = 0, failLaunch = 0, mallocs = 0, hostAllocs = 0, launches = 0;
  uint64_t random = 0;
  std::set<std::string> refuses;
  bool wrong = false;
  std::map<uintptr_t, Range> ranges;
  std::set<SimtStream*> streams;
  std::set<SimtEvent*> events;
  std::set<SimtGraph*> graphs;
  std::set<SimtGraphExec*> execs;

  Machine();
  bool oneIn(uint64_t n) {  // of its own: the scheduler starts anew with each launch
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % n == 0;
  }
  size_t pick(size_t n) {
    oneIn(1);
    return (random >> 33) % n;
  }
};
Machine& m();
using Lock = std::lock_guard<std::recursive_mutex>;

inline thread_local int currentDevice = 0;
inline thread_local cudaError_t lastError = cudaSuccess;
inline cudaError_t remember(cudaError_t e) {
  if (e != cudaSuccess && e != cudaErrorNotReady) lastError = e;
  return e;
}
cudaError_t machineError();  // why there is no device; after exit() has begun it is for nobody
inline Device& device(int i) { return m().devices[static_cast<size_t>(i)]; }

// ---- operations: runtime.cc ---------------------------------------------------------------------------------

// Memory of a device is poisoned unless something runs on it: the host and other devices cannot touch it.
class Open {
 public:
  explicit Open(int on) : on_(on) {
    if (device(on_).open++ == 0) each(__asan_unpoison_memory_region);
  }
  ~Open() {
    if (--device(on_).open == 0) each(__asan_poison_memory_region);
  }

 private:
  template <class F>
  void each(F&& f) const {
    for (const auto& [start, range] : m().ranges)
      if (!range.pinned && range.device == on_) f(reinterpret_cast<void*>(start), range.bytes);
  }
  int on_;
};

cudaError_t runFront(SimtStream* stream);        // the operation that has waited longest
bool runAny(bool (*wanted)(const SimtStream*));  // that of some stream; false: there is none
// Runs at once on the null stream; else waits in the queue, or is recorded.
cudaError_t submit(SimtStream* stream, Operation operation);

constexpr unsigned unsafe = 1, streamOfDevice = 2, notCapturing = 4;
// What every call looks at first. `unsafe`: while this thread captures it must not be made at all.
cudaError_t begin(unsigned rules, SimtStream* stream = nullptr);
template <class F>
cudaError_t call(unsigned rules, SimtStream* stream, F&& body) {
  const Lock hold(m().lock);
  const cudaError_t e = begin(rules, stream);
  return remember(e == cudaSuccess ? body() : e);
}

// One operation after another, and others may use the lock in between.
template <class Done>
cudaError_t drain(SimtStream* stream, Done&& done) {
  for (;;) {
    const Lock hold(m().lock);
    if (!m().streams.count(stream)) return cudaSuccess;  // another thread has destroyed it, after its work
    if (device(stream->device).broken != cudaSuccess) return remember(device(stream->device).broken);
    if (stream->queue.empty() || done()) return cudaSuccess;
    runFront(stream);
  }
}
inline cudaError_t drain(SimtStream* stream) {
  return drain(stream, [] { return false; });
}

}  // namespace simt
