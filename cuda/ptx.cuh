// Every instruction that CUDA C++ has no name for, one function each: the only file with inline PTX. The functions of
// the same names in test/simt/ptx.h say in plain C++ what each does; fragment layouts are those of the PTX manual.
//   mma.m16n8k16, lane = 4 g + t:
//     a[0] row g,   k 2t, 2t+1    a[1] row g+8, k 2t, 2t+1    a[2] row g, k 2t+8, 2t+9    a[3] row g+8, k 2t+8, 2t+9
//     b[0] k 2t, 2t+1, column g   b[1] k 2t+8, 2t+9, column g
//     d[0], d[1] row g, columns 2t, 2t+1                      d[2], d[3] row g+8, columns 2t, 2t+1
#pragma once

#include "platform.cuh"

#if !defined(__CUDACC__)
#include "../test/simt/ptx.h"
#else

namespace parvis::cuda::ptx {

__device__ inline uint32_t sharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// ---- matrix products ----------------------------------------------------------------------------------------

// d += a b; a [16, 16] and b [16, 8] bfloat16, two a register, the lower k in the lower half.
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit elements: lanes 8i .. 8i+7 give the rows (16 bytes each, in shared memory) of matrix i;
// r[i] of lane 4 g + t: row g, elements 2t, 2t+1.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}
// The same, transposed: r[i] of lane 4 g + t: rows 2t, 2t+1 of column g.
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}

// ---- numbers ------------------------------------------------------------------------------------------------

// Two bfloat16, rounded to nearest even; `low` in the lower half.
__device__ inline uint32_t packBf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
// 2^x, relative error about 2^-22.
__device__ inline float exp2Fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// 1 / x, the same; 0 for infinity.
__device__ inline float reciprocalFast(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// ---- asynchronous copies ------------------------------------------------------------------------------------

// 16 bytes from global to shared memory; only `valid` of them are read, the rest becomes zero.
__device__ inline void cpAsync16(void* to, const void* from, int valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(valid)
               : "memory");
}
__device__ inline void cpAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Returns when all but the `left` latest groups of this thread have arrived.
template <int left>
__device__ inline void cpAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// ---- barriers in shared memory ------------------------------------------------------------------------------

__device__ inline void mbarrierInit(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}
__device__ inline void mbarrierArrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(sharedAddress(barrier)) : "memory");
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// Arrives, and holds the phase open until so many bytes more have been copied.
__device__ inline void mbarrierArriveExpect(uint64_t* barrier, int bytes) {
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(sharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
// Bytes (a multiple of 16) from global to shared memory; counts on the barrier when they have arrived.
__device__ inline void bulkCopy(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   sharedAddress(to)),
               "l"(from), "r"(bytes), "r"(sharedAddress(barrier))
               : "memory");
}
#endif
// Returns when the phase of this parity (0 first) is complete.
__device__ inline void mbarrierWait(uint64_t* barrier, int parity) {
  uint32_t done = 0;
  while (!done)
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
#endif
                 : "=r"(done)
                 : "r"(sharedAddress(barrier)), "r"(parity)
                 : "memory");
}

// ---- programmatic dependent launch: platform.cuh, launchInStep -----------------------------------------------

// Returns when the kernel before this one is done and what it wrote is seen; at once where it was not to be overlapped.
__device__ inline void dependencyWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The kernel after this one may start when all blocks have called it (or ended).
__device__ inline void releaseDependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- global memory ------------------------------------------------------------------------------------------

// What another kernel of the step has written: past the first-level cache, in which a block of a kernel before may have
// left what was there then (kernels of a step overlap). 4, 8 or 16 bytes.
template <class T>
__device__ inline T loadFresh(const T* p) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  uint32_t word[sizeof(T) / 4];
  if constexpr (sizeof(T) == 4) {
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(word[0]) : "l"(p) : "memory");
  } else if constexpr (sizeof(T) == 8) {
    asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(word[0]), "=r"(word[1]) : "l"(p) : "memory");
  } else {
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "l"(p)
                 : "memory");
  }
  T v;
  __builtin_memcpy(&v, word, sizeof v);
  return v;
}
// 16 bytes that are read once (weights) where `wanted`; elsewhere v stays as it is. No branch, so that many follow each
// other closely; not kept in the first-level cache. Not a load of constants (.nc): ptxas would move that below
// barriers, down to where v is used. After this one a __syncwarp() says how far down it may go.
__device__ inline void loadStreaming(uint4& v, const void* p, bool wanted) {
  asm volatile(
      "{ .reg .pred wanted; setp.ne.u32 wanted, %5, 0; @wanted ld.global.L1::no_allocate.L2::128B.v4.u32 "
      "{%0,%1,%2,%3}, [%4]; }"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(p), "r"(static_cast<uint32_t>(wanted))
      : "memory");
}
// The same of 8 bytes.
__device__ inline void loadStreaming(float2& v, const void* p, bool wanted) {
  asm volatile(
      "{ .reg .pred wanted; setp.ne.u32 wanted, %3, 0; @wanted ld.global.L1::no_allocate.L2::128B.v2.f32 "
      "{%0,%1}, [%2]; }"
      : "+f"(v.x), "+f"(v.y)
      : "l"(p), "r"(static_cast<uint32_t>(wanted))
      : "memory");
}
// Bytes (a multiple of 16, more than 0) on their way into the second-level cache, where kernels overlap; nobody waits
// for them.
__device__ inline void prefetch(const void* p, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}
// Adds, and returns what was there: whoever finds an add of another block there sees what that one wrote before it.
// Threads of a block that meet this one at a barrier before it are meant, too, and those that meet it after it see.
__device__ inline uint32_t addAcquireRelease(uint32_t* p, uint32_t v) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
  return old;
}

// ---- where and when, for traces -------------------------------------------------------------------------------

// Nanoseconds, the same clock for the whole device; it may go on in steps of a microsecond.
__device__ inline uint64_t globalTimer() {
  uint64_t t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t)::"memory");
  return t;
}
// The multiprocessor that the block runs on.
__device__ inline uint32_t processor() {
  uint32_t p;
  asm volatile("mov.u32 %0, %smid;" : "=r"(p));
  return p;
}

// ---- clusters: blocks that run together, from compute capability 9.0 on --------------------------------------

// All threads of the cluster's blocks that have not ended meet; what they wrote to shared memory before is seen after.
__device__ inline void clusterBarrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// 4 or 16 bytes of the shared memory of the cluster's block of that rank: what lies where `p` lies in this block's.
template <class T>
__device__ inline T loadCluster(const T* p, int rank) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 16);
  uint32_t word[sizeof(T) / 4] = {};
#if __CUDA_ARCH__ >= 900
  uint32_t at;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(sharedAddress(p)), "r"(rank));
  if constexpr (sizeof(T) == 4) {
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(word[0]) : "r"(at) : "memory");
  } else {
    asm volatile("ld.shared::cluster.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(at)
                 : "memory");
  }
#endif
  T v;
  __builtin_memcpy(&v, word, sizeof v);
  return v;
}
}  // namespace parvis::cuda::ptx

#endif
