// CUDA without a GPU: what kernel sources see instead of the CUDA headers when they are compiled as plain C++.
// One fiber a thread, all on one thread of the operating system, so a run is repeatable: the order of fibers comes
// from a seed and changes only where a thread waits. That is the trade: it shows missing barriers, overruns and
// deadlocks on any machine, in every test run, but not races between two accesses that no barrier separates
// within one stretch of a fiber, and nothing of speed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "runtime.h"

// ---- language -----------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Set before a fiber goes on.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- the scheduler ------------------------------------------------------------------------------------------

namespace simt {

bool computesWrongly();  // PARVIS_SIMT has wrong=exp2

// A line of a source file: the caller's, or whatever an interpreter of kernels says.
struct Where {
  const char* file = "";
  unsigned line = 0;
  static constexpr Where current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    return {file, line};
  }
};

void setSeed(uint64_t seed);       // the order of fibers of the launches that follow
void setStepLimit(uint64_t most);  // switches of a launch; more is reported (a spin that never ends)
const std::string& report();       // of the last launch that failed, also printed to stderr
uint64_t random();                 // of the running launch

struct Launch {
  dim3 grid, block;
  size_t sharedBytes = 0;
  size_t sharedLimit = 227 << 10;  // of a block, static arrays included: enqueue() asks the device
  bool programmatic = false;     // may start while the kernel before it still runs: every thread must wait for that one
  unsigned cluster = 1;          // blocks in the direction of x that run together and read each other's shared memory
  const void* kernel = nullptr;  // for its name
  std::function<void()> body = {};  // one thread
};
cudaError_t check(const Launch& launch);  // what no device takes is found before anything runs
cudaError_t run(const Launch& launch);    // now, by the holder of the runtime's lock
// Programmatic launches that overlap: each runs as far as its threads wait for those before it, and goes on when
// `ahead` later ones have come as far. A kernel that reads too early then reads what was there `ahead` kernels ago.
cudaError_t runAhead(const Launch& launch, size_t ahead);
cudaError_t finishHeld();  // all of them go on to their ends
cudaError_t enqueue(Launch launch, cudaStream_t stream);

// What a kernel takes: its parameters one after the other, each where C++ would put it in a struct.
struct Parameters {
  struct Place {
    size_t offset, bytes, align;
  };
  std::vector<uint8_t> bytes;
  std::vector<Place> places;
  template <class T>
  void add(const T& value) {
    const size_t offset = (bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    bytes.resize(offset + sizeof(T));
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
    places.push_back({offset, sizeof(T), alignof(T)});
  }
};
// Gives one thread of a launch in place of the kernel's C++: what nvcc made of it (test/ptx). Null where nobody has set
// it.
using Interpret = std::function<void()> (*)(const Launch& launch, Parameters parameters);
extern Interpret interpret;

// Ends the launch with a message that names kernel, block and thread.
[[noreturn]] void fail(const std::string& what, Where where, cudaError_t error = cudaErrorLaunchFailure);

// The lanes of `mask` meet; the last to come runs `combine` on what each brought (null for lanes outside).
using Combine = void (*)(void* const* lanes, uint32_t mask);
void meet(uint32_t mask, const char* what, void* mine, Combine combine, Where where);
// All threads of the block that have not ended meet. Returns how many brought true.
int meetBlock(const char* what, bool value, Where where);
// Goes on when `holds` does; looked at only when no thread can run, i.e. as late as possible.
void waitUntil(const char* what, std::function<bool()> holds, Where where);
void awaitDependencies(Where where);  // griddepcontrol.wait
void releaseDependents();             // griddepcontrol.launch_dependents
void yield();                         // lets others run first
void perturb();                       // yields now and then
// Runs when nothing else can, or at once where the seed says so: a copy that arrives as late as it may.
void deliverLate(std::function<void()> copy);

// Asynchronous copies of the running thread: arrive at the wait for their group, or at once where the seed says so.
void asyncCopy(void* to, const void* from, int bytes, int valid);
void asyncCommit();
void asyncWait(int groupsLeft);

// An array in the block's shared memory, the same for all its threads; `site` tells arrays apart. Filled with 0xff
// (or with 0, if the seed says so), poisoned on both sides.
void* sharedArray(const void* site, const char* name, size_t bytes, size_t align);
uint8_t* dynamicShared();
bool isShared(const void* p);  // of the running block
// The same place in the dynamic shared memory of another block of the cluster.
void* sharedOf(const void* p, unsigned rank, Where where);
void meetCluster(Where where);  // barrier.cluster: all threads of the cluster's blocks that have not ended

template <class... P, class... A>
cudaError_t launch(bool programmatic, unsigned cluster, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes,
                   cudaStream_t stream, A&&... args) {
  std::tuple<std::decay_t<P>...> copy(std::forward<A>(args)...);
  Launch l{grid, block, sharedBytes};
  l.programmatic = programmatic;
  l.cluster = cluster;
  l.kernel = reinterpret_cast<const void*>(kernel);
  if (interpret) {
    Parameters parameters;
    std::apply([&](const auto&... value) { (parameters.add(value), ...); }, copy);
    l.body = interpret(l, std::move(parameters));
  } else l.body = [kernel, copy] { std::apply(kernel, copy); };
  return enqueue(std::move(l), stream);
}

}  // namespace simt

// ---- barriers, votes, shuffles ------------------------------------------------------------------------------

inline void __syncthreads(simt::Where w = simt::Where::current()) { simt::meetBlock("__syncthreads", false, w); }
inline int __syncthreads_count(int v, simt::Where w = simt::Where::current()) {
  return simt::meetBlock("__syncthreads_count", v != 0, w);
}
inline int __syncthreads_or(int v, simt::Where w = simt::Where::current()) {
  return simt::meetBlock("__syncthreads_or", v != 0, w) > 0;
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, simt::Where w = simt::Where::current()) {
  simt::meet(mask, "__syncwarp", nullptr, nullptr, w);
}
inline void __threadfence() {}
inline void __threadfence_system() {}
inline void __threadfence_block() {}

namespace simt {

struct Vote {
  bool value;
  uint32_t ballot;
};
inline uint32_t vote(uint32_t mask, bool value, const char* what, Where where) {
  Vote v{value, 0};
  meet(
      mask, what, &v,
      [](void* const* lanes, uint32_t mask) {
        uint32_t ballot = 0;
        for (int i = 0; i < 32; i++)
          if (mask >> i & 1) ballot |= static_cast<uint32_t>(static_cast<Vote*>(lanes[i])->value) << i;
        for (int i = 0; i < 32; i++)
          if (mask >> i & 1) static_cast<Vote*>(lanes[i])->ballot = ballot;
      },
      where);
  return v.ballot;
}

struct Shuffle {
  uint64_t value, result;
  int source;
  bool outside;
};
template <class T>
T shuffle(uint32_t mask, T value, int source, const char* what, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Shuffle s{0, 0, source, false};
  std::memcpy(&s.value, &value, sizeof(T));
  meet(
      mask, what, &s,
      [](void* const* lanes, uint32_t mask) {
        for (int i = 0; i < 32; i++) {
          if (!(mask >> i & 1)) continue;
          Shuffle* to = static_cast<Shuffle*>(lanes[i]);
          const Shuffle* from = static_cast<const Shuffle*>(lanes[to->source]);
          to->outside = !from;
          if (from) to->result = from->value;
        }
      },
      where);
  if (s.outside)
    fail(std::string(what) + " reads lane " + std::to_string(source) + ", which its mask leaves out", where);
  T result;
  std::memcpy(&result, &s.result, sizeof(T));
  return result;
}
inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31);
}

}  // namespace simt

inline uint32_t __ballot_sync(uint32_t mask, int v, simt::Where w = simt::Where::current()) {
  return simt::vote(mask, v != 0, "__ballot_sync", w);
}
inline int __any_sync(uint32_t mask, int v, simt::Where w = simt::Where::current()) {
  return simt::vote(mask, v != 0, "__any_sync", w) != 0;
}
inline int __all_sync(uint32_t mask, int v, simt::Where w = simt::Where::current()) {
  return simt::vote(mask, v != 0, "__all_sync", w) == mask;
}
template <class T>
T __shfl_sync(uint32_t mask, T v, int source, simt::Where w = simt::Where::current()) {
  return simt::shuffle(mask, v, source & 31, "__shfl_sync", w);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T v, int bits, simt::Where w = simt::Where::current()) {
  return simt::shuffle(mask, v, (simt::lane() ^ bits) & 31, "__shfl_xor_sync", w);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T v, unsigned by, simt::Where w = simt::Where::current()) {
  const int source = simt::lane() - static_cast<int>(by);
  return simt::shuffle(mask, v, source < 0 ? simt::lane() : source, "__shfl_up_sync", w);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T v, unsigned by, simt::Where w = simt::Where::current()) {
  const int source = simt::lane() + static_cast<int>(by);
  return simt::shuffle(mask, v, source > 31 ? simt::lane() : source, "__shfl_down_sync", w);
}

// ---- atomics: plain, since all fibers share one thread of the operating system -------------------------------

template <class T, class F>
T simtAtomic(T* p, F&& f) {
  simt::perturb();
  const T old = *p;
  *p = f(old);
  return old;
}
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T old) { return static_cast<T>(old + v); });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T old) { return old > v ? old : v; });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T old) { return old < v ? old : v; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T old) { return old | v; });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return simtAtomic(p, [&](T old) { return old == expected ? v : old; });
}

// ---- arithmetic ---------------------------------------------------------------------------------------------

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline float __uint_as_float(unsigned u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long both = static_cast<unsigned long long>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<unsigned>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
template <class T>
const T& min(const T& a, const T& b) {
  return b < a ? b : a;
}
template <class T>
const T& max(const T& a, const T& b) {
  return a < b ? b : a;
}
