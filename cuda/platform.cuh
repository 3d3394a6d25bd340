// The one place where a kernel source learns what it is compiled by: nvcc, or a plain C++ compiler with the SIMT
// layer of the tests. Hence no triple angle brackets and no `__shared__` anywhere else.
#pragma once

namespace parvis::cuda {

// How a kernel is launched. programmatic: by programmatic dependent launch, where the kernel's code can wait for the
// one before. cluster: blocks in the direction of x that read each other's shared memory, where there are more than
// one.
struct LaunchWay {
  bool programmatic = false;
  unsigned cluster = 1;
};

}  // namespace parvis::cuda

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <utility>

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

// A multiprocessor divides its memory between shared memory and cache as the kernel that it runs would have it, and
// takes a block of another division only when it is idle. Kernels follow each other closely, so all of them ask for the
// same division: most shared memory. It belongs to the function on a device, so it is asked for once.
template <class... P>
cudaError_t askForSharedMemory(void (*kernel)(P...)) {
  static std::mutex& lock = *new std::mutex;  // never destroyed: threads may outlive statics
  static auto& asked = *new std::set<std::pair<int, const void*>>;
  int device = 0;
  if (const cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  const std::lock_guard<std::mutex> hold(lock);
  const std::pair<int, const void*> own{device, reinterpret_cast<const void*>(kernel)};
  if (asked.count(own) > 0) return cudaSuccess;
  const cudaError_t e =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (e == cudaSuccess) asked.insert(own);
  return e;
}

// Whether a kernel's code is for compute capability 9.0 or more: older code that the driver of a newer device has
// translated neither waits for the kernel before nor meets the blocks of a cluster.
template <class... P>
cudaError_t isForCapability9(void (*kernel)(P...), bool& isIt) {
  cudaFuncAttributes code{};
  const cudaError_t e = cudaFuncGetAttributes(&code, kernel);
  isIt = e == cudaSuccess && code.ptxVersion >= 90;
  return e;
}
template <class... P>
bool knowsClusters(void (*kernel)(P...)) {
  bool knows = false;
  return isForCapability9(kernel, knows) == cudaSuccess && knows;
}

template <class... P, class... A>
cudaError_t launchAs(LaunchWay way, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes,
                     cudaStream_t stream, A&&... args) {
  if (sharedBytes > 40 << 10)  // a kernel may have 48 KB without asking, and some have arrays of their own besides
    if (const cudaError_t e = allowShared(kernel, sharedBytes); e != cudaSuccess) return e;
  if (const cudaError_t e = askForSharedMemory(kernel); e != cudaSuccess) return e;
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (way.programmatic) {
    bool waits = false;
    if (const cudaError_t e = isForCapability9(kernel, waits); e != cudaSuccess) return e;
    if (waits) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
  }
  if (way.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {way.cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
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

template <class... P>
bool knowsClusters(void (*)(P...)) {
  return true;
}

template <class... P, class... A>
cudaError_t launchAs(LaunchWay way, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes,
                     cudaStream_t stream, A&&... args) {
  return simt::launch(way.programmatic, way.cluster, kernel, grid, block, sharedBytes, stream,
                      static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda

#endif

namespace parvis::cuda {

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, A&&... args) {
  return launchAs({}, kernel, grid, block, sharedBytes, stream, static_cast<A&&>(args)...);
}

constexpr int maxCluster = 8;  // blocks, on any device that has clusters

// Choices of how the kernels of a step work. None changes a bit of a result. No GPU has measured them yet: defaults are
// what is expected to be faster, and `PARVIS_TUNING` in the environment sets others ("lateRelease=1,clusters=0").
struct Tuning {
  bool largeTiles = true;  // projections that overlap: as few blocks as fill the device, so that the next has room
  bool evenTiles = true;   // projections with more blocks than places: as many blocks as places, which share the tiles
  bool deepStages = true;  // projections of up to 8 rows: eight pieces of activations under way, not three
  bool lateRelease = false;  // projections let the next kernel start behind their loop, not before it
  bool earlyKeys = true;     // attention asks for keys and values of earlier steps before it waits
  bool clusters = false;     // blocks that share the keys of attention merge through each other's shared memory: where
                             // the device has clusters (9.0), as a Device says
  bool guidedHead = true;    // the head of the model guides logits, so that a draw reads half as many
  bool rowsAhead = true;     // the tables of the next step come from the host while this one runs
};

// Where the kernels of a step go, whether they overlap there, and how they work: Device::steps() for those of a
// session.
struct StepStream {
  cudaStream_t stream;
  bool overlap;
  Tuning tuning;
  unsigned cluster = 1;  // blocks of the next launch that run together
  StepStream(cudaStream_t stream, bool overlap = false, const Tuning& tuning = {})
      : stream(stream), overlap(overlap), tuning(tuning) {}
  StepStream inClusters(unsigned blocks) const {
    StepStream s = *this;
    s.cluster = blocks;
    return s;
  }
};

// A kernel of a step, which may start while the one before it still runs (programmatic dependent launch). Why that is
// safe:
//   - Every kernel that is launched so calls ptx::dependencyWait() in all threads, before any of them returns, and
//     before it reads or writes what a kernel of a step writes. Only packed weights are read earlier: nothing writes
//     them after loading, and a step's first kernel (takeStep or composePass) releases the others when its own wait is
//     over. With `Tuning::earlyKeys`, attention also reads tables, keys and values earlier: the projection before it
//     releases it when its own wait is over, so all kernels before that one have ended; what that one writes of the
//     cache, attention reads after its wait.
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
  return launchAs({on.overlap, on.cluster}, kernel, grid, block, sharedBytes, on.stream, static_cast<A&&>(args)...);
}

}  // namespace parvis::cuda
