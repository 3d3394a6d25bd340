// The ring of tables in the host's memory. A step that waits for the bus waits a microsecond or two for each read that
// follows another, so the tables of the next step are brought to the device while a draw runs, where the host is so far
// ahead; the next step looks there first.
#pragma once

#include "kernels.cuh"

namespace parvis::cuda {

// Of this step, whose number is returned. All threads of the block call it. found: two numbers of shared memory.
struct PartOfStep {
  uint32_t step;
  const volatile int32_t* ints;
};
__device__ inline PartOfStep partOfStep(const Ring& r, uint32_t* found) {
  if (threadIdx.x == 0) {
    const uint32_t step = ptx::loadFresh(r.counter);
    found[0] = step;
    found[1] = r.ahead ? ptx::loadFresh(&r.endOf(r.ahead)->step) : 0;
  }
  __syncthreads();
  const uint32_t step = found[0];
  return {step, r.ahead && found[1] == step + 1 ? r.ahead : r.part(step)};
}

// The tables of the next step, by one block, beside other blocks of this step. next: a number of shared memory.
__device__ inline void bringAhead(const Ring& r, uint32_t* next) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (thread == 0) {
    const uint32_t step = ptx::loadFresh(r.counter);  // this step has been counted
    const volatile uint32_t* const written = &r.endOf(r.part(step))->step;
    *next = *written == step + 1 ? step + 1 : 0;
    __threadfence_system();  // the host writes the rest before it
  }
  __syncthreads();
  if (*next == 0) return;
  const volatile int32_t* const from = r.part(*next - 1);
  const volatile int32_t* const counts = from + r.stride - partEndInts;
#pragma unroll 1
  for (int table = 0; table < 4; table++) {
    const int at = counts[table], count = counts[4 + table];
#pragma unroll 1
    for (int i = thread; i < count && at + i < r.stride - partEndInts; i += threads) r.ahead[at + i] = from[at + i];
  }
  __syncthreads();
  if (thread == 0) *const_cast<uint32_t*>(&r.endOf(r.ahead)->step) = *next;
}

inline bool valid(const Ring& r) { return r.depth >= 1 && r.stride >= partEndInts && r.stride % 4 == 0; }

}  // namespace parvis::cuda
