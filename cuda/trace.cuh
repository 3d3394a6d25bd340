// When blocks of a kernel start, are over their wait for the kernel before, and end: for bench/cuda/trace.cc, which is
// built with PARVIS_TRACE of the same sources. Otherwise nothing is left of it.
#pragma once

#include "ptx.cuh"

namespace parvis::cuda {

struct TraceEvent {
  uint64_t started, waited, done;  // nanoseconds
  uint32_t block, blocks, processor, unused;
};
struct TraceLog {
  TraceEvent* events;  // [most]
  uint32_t* count;     // of those that were to be written
  uint32_t most;
};

#if defined(PARVIS_TRACE) && defined(__CUDACC__)

// Each source has its own, which a function of it sets.
static __device__ TraceLog traceLog;

class Traced {
 public:
  __device__ Traced() : started_(ptx::globalTimer()), waited_(started_) {}
  __device__ void waited() { waited_ = ptx::globalTimer(); }
  __device__ ~Traced() {
    const uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    if (threadIdx.x != 0 || !traceLog.events) return;
    const uint32_t at = atomicAdd(traceLog.count, 1);
    if (at < traceLog.most)
      traceLog.events[at] = {started_,
                             waited_,
                             ptx::globalTimer(),
                             blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z),
                             blocks,
                             ptx::processor(),
                             0};
  }

 private:
  uint64_t started_, waited_;
};
inline cudaError_t traceInto(const TraceLog& log) { return cudaMemcpyToSymbol(traceLog, &log, sizeof log); }

#else

struct Traced {
  __device__ void waited() {}
};

#endif

// Of project.cu and attend.cu, in a traced build alone.
cudaError_t traceProjections(const TraceLog& log);
cudaError_t traceAttention(const TraceLog& log);

}  // namespace parvis::cuda
