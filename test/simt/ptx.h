// What the instructions of cuda/ptx.cuh do, in plain C++ with the fragment layouts of the PTX manual.
#pragma once

#include <string>

#include "simt.h"

namespace parvis::cuda::ptx {

using simt::Where;

namespace portable {

inline uint32_t bf16(float f) {
  const uint32_t u = __float_as_uint(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the NaN of cvt.rn.bf16x2
  return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}
inline void aligned(const void* p, int to, const char* what, Where w) {
  if (reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(to) != 0)
    simt::fail(std::string(what) + ": address is not a multiple of " + std::to_string(to), w);
}
inline void shared(const void* p, const char* what, Where w) {
  if (!simt::isShared(p)) simt::fail(std::string(what) + ": address is not in shared memory", w);
}

}  // namespace portable

// ---- matrix products ----------------------------------------------------------------------------------------

namespace portable {

// Most of the time of most programs goes here: no sanitizers on what reads nothing but its own arrays and fragments,
// and a loop over columns, that the compiler can do two or four at a time without another order of sums.
struct MmaOperands {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
__attribute__((no_sanitize_address, no_sanitize_undefined, optimize("O3"))) inline void mmaOf(void* const* lanes,
                                                                                              uint32_t) {
  double A[16][16], B[16][8], D[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const MmaOperands& o = *static_cast<const MmaOperands*>(lanes[lane]);
    const int g = lane >> 2, t = lane & 3;
    for (int r = 0; r < 4; r++) {
      const int row = g + r % 2 * 8, k = 2 * t + r / 2 * 8;
      A[row][k] = static_cast<double>(__builtin_bit_cast(float, o.a[r] << 16));
      A[row][k + 1] = static_cast<double>(__builtin_bit_cast(float, o.a[r] & 0xffff0000u));
      D[g + r / 2 * 8][2 * t + r % 2] = static_cast<double>(o.d[r]);
    }
    for (int r = 0; r < 2; r++) {
      B[2 * t + r * 8][g] = static_cast<double>(__builtin_bit_cast(float, o.b[r] << 16));
      B[2 * t + r * 8 + 1][g] = static_cast<double>(__builtin_bit_cast(float, o.b[r] & 0xffff0000u));
    }
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < 16; k++)
      for (int column = 0; column < 8; column++) D[row][column] += A[row][k] * B[k][column];
  for (int lane = 0; lane < 32; lane++) {
    const MmaOperands& o = *static_cast<const MmaOperands*>(lanes[lane]);
    for (int r = 0; r < 4; r++) o.d[r] = static_cast<float>(D[(lane >> 2) + r / 2 * 8][2 * (lane & 3) + r % 2]);
  }
}

}  // namespace portable

// Products are exact; sums are rounded once. Devices sum in an order of their own, so compare with a tolerance.
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              Where w = Where::current()) {
  portable::MmaOperands mine{d, a, b};
  simt::meet(0xffffffffu, "mma", &mine, portable::mmaOf, w);
}

template <bool transposed>
void ldmatrix(uint32_t (&r)[4], const void* row, const char* what, Where w) {
  portable::aligned(row, 16, what, w);
  portable::shared(row, what, w);
  struct Operands {
    uint32_t* r;
    const uint16_t* row;
  } mine{r, static_cast<const uint16_t*>(row)};
  simt::meet(
      0xffffffffu, what, &mine,
      [](void* const* lanes, uint32_t) {
        const auto element = [&](int matrix, int row, int column) -> uint32_t {
          return static_cast<const Operands*>(lanes[8 * matrix + row])->row[column];
        };
        for (int lane = 0; lane < 32; lane++)
          for (int i = 0; i < 4; i++) {
            const int g = lane >> 2, t = lane & 3;
            static_cast<Operands*>(lanes[lane])->r[i] = transposed
                                                            ? element(i, 2 * t, g) | element(i, 2 * t + 1, g) << 16
                                                            : element(i, g, 2 * t) | element(i, g, 2 * t + 1) << 16;
          }
      },
      w);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where w = Where::current()) {
  ldmatrix<false>(r, row, "ldmatrix", w);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where w = Where::current()) {
  ldmatrix<true>(r, row, "ldmatrix.trans", w);
}

// ---- numbers ------------------------------------------------------------------------------------------------

inline uint32_t packBf16(float low, float high) { return portable::bf16(low) | portable::bf16(high) << 16; }
inline float exp2Fast(float x) {
  if (simt::computesWrongly()) x *= 1.25f;
  return x < -126.0f ? 0.0f : std::exp2(x);
}
inline float reciprocalFast(float x) { return 1.0f / x; }

// ---- asynchronous copies ------------------------------------------------------------------------------------

inline void cpAsync16(void* to, const void* from, int valid = 16, Where w = Where::current()) {
  portable::aligned(to, 16, "cp.async", w);
  portable::aligned(from, 16, "cp.async", w);
  portable::shared(to, "cp.async", w);
  simt::asyncCopy(to, from, 16, valid);
}
inline void cpAsyncCommit() { simt::asyncCommit(); }
template <int left>
void cpAsyncWait() {
  simt::asyncWait(left);
}

// ---- barriers in shared memory ------------------------------------------------------------------------------

namespace portable {

// In the 8 bytes of a barrier.
struct Barrier {
  uint16_t expected, missing;
  int32_t bytes : 31;
  uint32_t parity : 1;
};
static_assert(sizeof(Barrier) == 8);
inline Barrier* barrier(uint64_t* p, const char* what, Where w) {
  aligned(p, 8, what, w);
  shared(p, what, w);
  return reinterpret_cast<Barrier*>(p);
}
inline void complete(Barrier* b) {
  if (b->missing > 0 || b->bytes != 0) return;
  b->missing = b->expected;
  b->parity ^= 1;
}

}  // namespace portable

inline void mbarrierInit(uint64_t* p, int arrivals, Where w = Where::current()) {
  *portable::barrier(p, "mbarrier.init", w) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0};
}
inline void mbarrierArriveExpect(uint64_t* p, int bytes, Where w = Where::current()) {
  portable::Barrier* b = portable::barrier(p, "mbarrier.arrive", w);
  if (b->missing == 0) simt::fail("mbarrier.arrive: one arrival more than it was made for", w);
  b->bytes += bytes;
  b->missing--;
  portable::complete(b);
}
inline void mbarrierArrive(uint64_t* p, Where w = Where::current()) { mbarrierArriveExpect(p, 0, w); }
inline void mbarrierWait(uint64_t* p, int parity, Where w = Where::current()) {
  const portable::Barrier* b = portable::barrier(p, "mbarrier.wait", w);
  simt::waitUntil(
      "mbarrier.wait", [=] { return static_cast<int>(b->parity) != parity; }, w);
}
inline void bulkCopy(void* to, const void* from, int bytes, uint64_t* p, Where w = Where::current()) {
  portable::Barrier* b = portable::barrier(p, "cp.async.bulk", w);
  portable::aligned(to, 16, "cp.async.bulk", w);
  portable::aligned(from, 16, "cp.async.bulk", w);
  portable::shared(to, "cp.async.bulk", w);
  if (bytes % 16 != 0) simt::fail("cp.async.bulk: not a multiple of 16 bytes", w);
  simt::deliverLate([=] {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    b->bytes -= bytes;
    portable::complete(b);
  });
}

// ---- programmatic dependent launch ------------------------------------------------------------------------------

inline void dependencyWait(Where w = Where::current()) { simt::awaitDependencies(w); }
inline void releaseDependents() { simt::releaseDependents(); }

// ---- global memory ------------------------------------------------------------------------------------------

template <class T>
inline T loadFresh(const T* p, Where w = Where::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  portable::aligned(p, sizeof(T), "ld.global.cg", w);
  return *p;
}
inline void loadStreaming(uint4& v, const void* p, bool wanted, Where w = Where::current()) {
  portable::aligned(p, 16, "ld.global.v4", w);
  if (wanted) std::memcpy(&v, p, 16);
}
inline void loadStreaming(float2& v, const void* p, bool wanted, Where w = Where::current()) {
  portable::aligned(p, 8, "ld.global.v2", w);
  if (wanted) std::memcpy(&v, p, 8);
}
inline void prefetch(const void* p, int bytes, Where w = Where::current()) {
  portable::aligned(p, 16, "cp.async.bulk.prefetch", w);
  if (bytes <= 0 || bytes % 16 != 0) simt::fail("cp.async.bulk.prefetch: not a multiple of 16 bytes", w);
  for (int i = 0; i < bytes; i += 16) (void)*(static_cast<const volatile uint8_t*>(p) + i);  // all of it is there
}
// ---- clusters -----------------------------------------------------------------------------------------------

inline void clusterBarrier(Where w = Where::current()) { simt::meetCluster(w); }
template <class T>
inline T loadCluster(const T* p, int rank, Where w = Where::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 16);
  portable::aligned(p, sizeof(T), "ld.shared::cluster", w);
  T v;
  std::memcpy(&v, simt::sharedOf(p, static_cast<unsigned>(rank), w), sizeof v);
  return v;
}

inline uint32_t addAcquireRelease(uint32_t* p, uint32_t v) {
  const uint32_t old = *p;
  *p += v;
  simt::perturb();
  return old;
}

}  // namespace parvis::cuda::ptx
