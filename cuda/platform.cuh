// The one place where a kernel source learns what it is compiled by: nvcc, or a plain C++ compiler with the SIMT
// layer of the tests. Hence no triple angle brackets and no `__shared__` anywhere else.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>

// An array of the block's shared memory: a pointer, not an array, so never take its sizeof.
#define PARVIS_SHARED(type, name, count)             \
  __shared__ __align__(16) type name##Array_[count]; \
  type* const name = name##Array_

namespace parvis::cuda {

// The launch's dynamic shared memory.
__device__ inline uint8_t* dynamicShared() {
  extern __shared__ __align__(128) uint8_t parvisDynamicShared[];
  return parvisDynamicShared;
}

// Lets a kernel have as much shared memory as a block of this device can, whatever this launch needs: the limit belongs
// to the function, hence to all threads of the process. Were it set to what a launch needs, one thread would take back
// what another has just asked for and is about to launch with, and graphs would outlive the limit of their kernels.
template <class... P>
cudaError_t allowShared(void (*kernel)(P...), size_t bytes) {
  cudaFuncAttributes code{};
  cudaError_t e = cudaFuncGetAttributes(&code, kernel);
  if (e != cudaSuccess || bytes <= static_cast<size_t>(code.maxDynamicSharedSizeBytes)) return e;
  int device = 0, most = 0;
  e = cudaGetDevice(&device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (e != cudaSuccess) return e;
  most -= static_cast<int>(code.sharedSizeBytes);
  return most < 0 || bytes > static_cast<size_t>(most)
             ? cudaErrorInvalidValue
             : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

// `programmatic`: by programmatic dependent launch, where the kernel's code can wait for the one before.
template <class... P, class... A>
cudaError_t launchAs(bool programmatic, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes,
                     cudaStream_t stream, A&&... args) {
  if (sharedBytes > 40 << 10)  // a kernel may have 48 KB without asking, and some have arrays of their own besides
    if (const cudaError_t e = allowShared(kernel, sharedBytes); e != cudaSuccess) return e;
  cudaLaunchAttribute attribute{};
  if (programmatic) {
    cudaFuncAttributes code{};
    const cudaError_t e = cudaFuncGetAttributes(&code, kernel);
    if (e != cudaSuccess) return e;
    if (code.ptxVersion < 90) programmatic = false;
    // A multiprocessor divides its memory between shared memory and cache as the kernel that it runs would have it, and
    // takes a block of another division when it is idle: kernels that are to run side by side ask for the same one.
    else if (const cudaError_t f = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                        cudaSharedmemCarveoutMaxShared);
             f != cudaSuccess)
      return f;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = programmatic ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda

#else

#include "../test/simt/simt.h"

#define PARVIS_SHARED(type, name, count)                   \
  type* const name = static_cast<type*>(simt::sharedArray( \
      [] {                                                 \
        static char site;                                  \
        return &site;                                      \
      }(),                                                 \
      #name, sizeof(type) * (count), alignof(type)))

namespace parvis::cuda {

inline uint8_t* dynamicShared() { return simt::dynamicShared(); }

template <class... P, class... A>
cudaError_t launchAs(bool programmatic, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes,
                     cudaStream_t stream, A&&... args) {
  return simt::launch(programmatic, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda

#endif

namespace parvis::cuda {

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  return launchAs(false, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}

// Where the kernels of a step go, and whether they overlap there: Device::steps() for those of a session.
struct StepStream {
  cudaStream_t stream;
  bool overlap;
  StepStream(cudaStream_t stream, bool overlap = false) : stream(stream), overlap(overlap) {}
};

// A kernel of a step, which may start while the one before it still runs (programmatic dependent launch). Why that is
// safe:
//   - Every kernel that is launched so calls ptx::dependencyWait() in all threads, before any of them returns, and
//     before it reads or writes what a kernel of a step writes. Only packed weights are read earlier: nothing writes
//     them after loading, and a step's first kernel (takeStep or composePass) releases the others when its own wait is
//     over.
//   - The wait is for the kernel before to have ended, not for its releaseDependents(). That one had itself waited, and
//     so on: after its wait, a kernel sees the writes of all earlier kernels, not only of the previous one.
//     Hence no kernel overwrites what an earlier one still reads (activations, rows, partials, counters, logits),
//     either.
//   - A kernel starts early when all blocks of the one before have called releaseDependents(), hence run: it takes no
//     place that an earlier kernel needs.
//   - Copies, events and kernels by `launch` wait for everything before them to end, and a kernel after a copy waits
//     for it: results that it reads, and what the host writes into the ring.
//   - Code for less than compute capability 9, translated by the driver of a newer device, has no wait in it: launched
//     plainly.
template <class... P, class... A>
cudaError_t launchInStep(void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, StepStream on, A&&... args) {
  return launchAs(on.overlap, kernel, grid, block, sharedBytes, on.stream, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda
