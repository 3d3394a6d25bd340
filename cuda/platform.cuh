// The one place where a kernel source learns what it is compiled by: nvcc, or a plain C++ compiler with the SIMT
// layer of the tests. Hence no triple angle brackets and no `__shared__` anywhere else.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>

// An array of the block's shared memory: a pointer, not an array, so never take its sizeof.
#define PARVIS_SHARED(type, name, count)                    \
  __shared__ __align__(16) type name##Array_[count];        \
  type* const name = name##Array_

namespace parvis::cuda {

// The launch's dynamic shared memory.
__device__ inline uint8_t* dynamicShared() {
  extern __shared__ __align__(128) uint8_t parvisDynamicShared[];
  return parvisDynamicShared;
}

template <class... P, class... A>
cudaError_t launchAs(bool cooperative, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  if (sharedBytes > 40 << 10) {  // a kernel may have 48 KB without asking, and some have arrays of their own besides
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes));
    if (e != cudaSuccess) return e;
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda

#else

#include "../test/simt/simt.h"

#define PARVIS_SHARED(type, name, count) \
  type* const name = static_cast<type*>(simt::sharedArray([] { static char site; return &site; }(), #name, sizeof(type) * (count), alignof(type)))

namespace parvis::cuda {

inline uint8_t* dynamicShared() { return simt::dynamicShared(); }

template <class... P, class... A>
cudaError_t launchAs(bool cooperative, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  return simt::launch(cooperative, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda

#endif

namespace parvis::cuda {

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  return launchAs(false, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}
// All blocks alive together, so that they may wait for each other.
template <class... P, class... A>
cudaError_t launchCooperative(void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  return launchAs(true, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda
