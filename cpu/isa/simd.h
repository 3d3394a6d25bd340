// Vectors of the instruction set this unit is compiled for, by the compiler's vector extension. Few intrinsics: the
// bfloat16 dot products of AVX-512 and NEON, and what widens bytes, which the compiler does not form. Everything here
// is in an anonymous namespace and includes no template of the standard library, so that the linker cannot hand code
// compiled for one instruction set to a unit of another.
#pragma once

#include <stddef.h>
#include <stdint.h>
#if defined(__SSE4_1__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Whether products of bfloat16 numbers are made as such, so that activations are bfloat16 too where weights are.
// Without an instruction for it (the simulated GPU's tests ask for that, to compare with) each number is widened.
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) || defined(PARVIS_BF16_EMULATED)
#define PARVIS_BF16_PRODUCTS
#endif

namespace {

// Tiles have as many rows as sums fit into the registers beside the weights.
#if defined(__AVX512F__)
constexpr int lanes = 16, tileRows = 8;
constexpr bool fullTilesFirst = false;
constexpr int tileVectors(int) { return 2; }
#elif defined(__AVX2__)
constexpr int lanes = 8, tileRows = 6;
constexpr bool fullTilesFirst = true;
constexpr int tileVectors(int rows) { return rows <= 3 ? 4 : 2; }
#elif defined(__ARM_NEON)
constexpr int lanes = 4, tileRows = 6;
constexpr bool fullTilesFirst = true;
constexpr int tileVectors(int rows) { return rows <= 2 ? 8 : 4; }
#else
constexpr int lanes = 4, tileRows = 6;
constexpr bool fullTilesFirst = true;
constexpr int tileVectors(int rows) { return rows <= 1 ? 8 : rows <= 3 ? 4 : 2; }
#endif
constexpr int panelVectors = 32 / lanes;
// Rows from which it pays to widen weights of so many bytes once for all tiles.
constexpr int widenRows(int bytes) { return (bytes == 1 ? 2 : 3) * tileRows; }

typedef float vf __attribute__((vector_size(lanes * 4)));
typedef float vfu __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(lanes * 4)));
typedef uint32_t vuu __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(lanes * 4)));
typedef uint16_t vhu __attribute__((vector_size(lanes * 2), aligned(2), may_alias));
typedef uint16_t vh __attribute__((vector_size(lanes * 2)));
typedef uint32_t __attribute__((aligned(2), may_alias)) pair_t;

using bf16 = uint16_t;

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

INLINE vf load(const float* p) { return *reinterpret_cast<const vfu*>(p); }
INLINE void store(float* p, vf v) { *reinterpret_cast<vfu*>(p) = v; }
INLINE vu loadBits(const uint32_t* p) { return *reinterpret_cast<const vuu*>(p); }
// Integers of a byte to floats: GCC 12 takes vectors of bytes apart.
INLINE vf loadBytes(const int8_t* p) {
#if defined(__AVX512F__)  // masked, because GCC 12 warns of what the other form leaves undefined
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const vi wide = (vi)_mm512_maskz_cvtepi8_epi32(static_cast<__mmask16>(-1), bytes);
#elif defined(__AVX2__)
  const vi wide = (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE4_1__)
  const vi wide = (vi)_mm_cvtepi8_epi32(_mm_loadu_si32(p));
#elif defined(__ARM_NEON)
  int32_t bits;
  __builtin_memcpy(&bits, p, 4);
  const vi wide = (vi)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bits)))));
#else
  const vi wide = {p[0], p[1], p[2], p[3]};
#endif
  return __builtin_convertvector(wide, vf);
}
// V vectors of them, one behind the other.
template <int V>
INLINE void loadBytes(const int8_t* p, vf (&out)[V]) {
#if defined(__ARM_NEON)
  // Sixteen bytes at a time: a load and ten operations in place of four loads and sixteen.
  if constexpr (V % 4 == 0) {
#pragma GCC unroll 2
    for (int j = 0; j < V; j += 4) {
      const int8x16_t bytes = vld1q_s8(p + j * lanes);
      const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
      out[j] = (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
      out[j + 1] = (vf)vcvtq_f32_s32(vmovl_high_s16(low));
      out[j + 2] = (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
      out[j + 3] = (vf)vcvtq_f32_s32(vmovl_high_s16(high));
    }
    return;
  }
#endif
#pragma GCC unroll 8
  for (int j = 0; j < V; j++) out[j] = loadBytes(p + j * lanes);
}
// Written out: from a loop over the lanes GCC 12 makes sixteen masked inserts, not one broadcast.
#if defined(__AVX512F__)
#define PARVIS_LANES(s) s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s
#elif defined(__AVX2__)
#define PARVIS_LANES(s) s, s, s, s, s, s, s, s
#else
#define PARVIS_LANES(s) s, s, s, s
#endif
INLINE vf fill(float s) { return vf{PARVIS_LANES(s)}; }
INLINE vu fillBits(uint32_t s) { return vu{PARVIS_LANES(s)}; }
// Two bfloat16 numbers share 32 bits, the first one below.
INLINE vf lowHalf(vu both) { return reinterpret_cast<vf>(both << 16); }
INLINE vf highHalf(vu both) { return reinterpret_cast<vf>(both & fillBits(0xffff0000u)); }
#if defined(__AVX512F__)
INLINE vf swapPairs(vf v) {
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}
#elif defined(__AVX2__)
INLINE vf swapPairs(vf v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6); }
#else
INLINE vf swapPairs(vf v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2); }
#endif
INLINE vf max(vf a, vf b) { return a > b ? a : b; }
INLINE vf min(vf a, vf b) { return a < b ? a : b; }

INLINE bf16 roundBf16(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16>(u >> 16 | 0x40);  // NaN stays NaN
  return static_cast<bf16>((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
INLINE float widen(bf16 h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

// Nearest even; finite values and infinities (a NaN may become an infinity: callers check logits).
INLINE vh roundVector(vf v) {
  const vu u = reinterpret_cast<vu>(v);
  return __builtin_convertvector((u + fillBits(0x7fff) + (u >> 16 & fillBits(1))) >> 16, vh);
}

INLINE void storeElements(float* p, vf v) { store(p, v); }
INLINE void storeElements(bf16* p, vf v) { *reinterpret_cast<vhu*>(p) = roundVector(v); }
INLINE vf rounded(const float*, vf v) { return v; }
INLINE vf rounded(const bf16*, vf v) { return reinterpret_cast<vf>(__builtin_convertvector(roundVector(v), vu) << 16); }
INLINE void storeElement(float* p, float v) { *p = v; }
INLINE void storeElement(bf16* p, float v) { *p = roundBf16(v); }

#if defined(PARVIS_BF16_PRODUCTS)
// Vectors of pairs of bfloat16 numbers, and sum + the products of both of a pair.
#if defined(__AVX512BF16__)
using vpairs = __m512bh;
INLINE vpairs asPairs(vu bits) { return (vpairs)bits; }
INLINE vu asBits(vpairs p) { return (vu)p; }
INLINE vf addPairs(vf sum, vpairs a, vpairs b) { return (vf)_mm512_dpbf16_ps((__m512)sum, a, b); }
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
using vpairs = bfloat16x8_t;
INLINE vpairs asPairs(vu bits) { return vreinterpretq_bf16_u32((uint32x4_t)bits); }
INLINE vu asBits(vpairs p) { return (vu)vreinterpretq_u32_bf16(p); }
INLINE vf addPairs(vf sum, vpairs a, vpairs b) { return (vf)vbfdotq_f32((float32x4_t)sum, a, b); }
#else
using vpairs = vu;
INLINE vpairs asPairs(vu bits) { return bits; }
INLINE vu asBits(vpairs p) { return p; }
INLINE vf addPairs(vf sum, vpairs a, vpairs b) {
  sum += lowHalf(b) * lowHalf(a);
  sum += highHalf(b) * highHalf(a);
  return sum;
}
#endif
INLINE vpairs fillPair(const bf16* p) { return asPairs(fillBits(*reinterpret_cast<const pair_t*>(p))); }
INLINE vpairs loadPairs(const bf16* p) { return asPairs(loadBits(reinterpret_cast<const uint32_t*>(p))); }
INLINE void storePairs(bf16* p, vpairs v) { *reinterpret_cast<vuu*>(p) = asBits(v); }
// Numbers that need no rounding: integers up to 256.
INLINE vpairs pairs(vf even, vf odd) {
  return asPairs(reinterpret_cast<vu>(even) >> 16 | (reinterpret_cast<vu>(odd) & fillBits(0xffff0000u)));
}
#endif

// e^x, relative error below 2e-7; underflows to 0 under -87. NaN stays NaN, by the order of the operands: of two that
// do not compare, min and max take the second.
INLINE vf exponential(vf x) {
  const vf t = max(fill(-88.0f), min(fill(88.0f), x)) * fill(1.44269504088896f);
  const vf magic = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vf whole = (t + magic) - magic;
  const vf f = (t - whole) * fill(0.693147180559945f);  // e^f, |f| <= 0.35
  vf p = fill(1.0f / 720);
  p = p * f + fill(1.0f / 120);
  p = p * f + fill(1.0f / 24);
  p = p * f + fill(1.0f / 6);
  p = p * f + fill(0.5f);
  p = p * f + fill(1.0f);
  p = p * f + fill(1.0f);
  const vi bits = (__builtin_convertvector(whole, vi) + 127) << 23;
  const vf result = p * reinterpret_cast<vf>(bits);
  return x < fill(-87.0f) ? vf{} : result;
}

INLINE vf silu(vf x) { return x / (fill(1.0f) + exponential(-x)); }

// x sigmoid(slope x)
INLINE vf silu(vf x, vf slope) { return x / (fill(1.0f) + exponential(-(slope * x))); }

INLINE float sumLanes(vf v) {
  float s = 0;
  for (int i = 0; i < lanes; i++) s += v[i];
  return s;
}

}  // namespace
