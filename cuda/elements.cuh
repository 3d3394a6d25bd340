// Elements: the type of weights and of activations that are multiplied, float or bfloat16 (as uint16_t). Rounding is to
// nearest even, as on the CPU.
#pragma once

#include "ptx.cuh"

namespace parvis::cuda {

// Scores of attention. A key that is not seen has `masked`: its probability is 0, whatever the maximum. Keys are masked
// by their index alone, so that a score that is NaN or infinite reaches the result.
constexpr float masked = -INFINITY;
constexpr float noScore = -1e30f;  // a maximum of nothing; finite, so that differences are

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(uint16_t v) { return __uint_as_float(static_cast<uint32_t>(v) << 16); }
struct Half {  // as it is stored
  uint16_t bits;
};
__device__ inline float widen(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16, exponent = h.bits >> 10 & 31,
                 mantissa = h.bits & 1023;
  if (exponent == 0) {
    const float f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  return __uint_as_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13);
}
__device__ inline float lowHalf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float highHalf(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline void storeElement(float* p, float v) { *p = v; }
__device__ inline void storeElement(uint16_t* p, float v) { *p = static_cast<uint16_t>(ptx::packBf16(v, 0.0f)); }

// Two neighbouring elements.
__device__ inline void storePair(float* p, float a, float b) { *reinterpret_cast<float2*>(p) = make_float2(a, b); }
__device__ inline void storePair(uint16_t* p, float a, float b) {
  *reinterpret_cast<uint32_t*>(p) = ptx::packBf16(a, b);
}
__device__ inline float2 loadPair(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ inline float2 freshPair(const float* p) { return ptx::loadFresh(reinterpret_cast<const float2*>(p)); }
__device__ inline float2 loadPair(const uint16_t* p) {
  const uint32_t v = *reinterpret_cast<const uint32_t*>(p);
  return make_float2(lowHalf(v), highHalf(v));
}

// Four integers of 8 bits, as pairs of bfloat16. Integers of eight bits are exact in bfloat16: what is cut off are
// zeroes. Behind the exponent of 2^23, bits are whole numbers.
__device__ inline void widenIntegers(uint32_t four, uint32_t& first, uint32_t& second) {
  const uint32_t above = four ^ 0x80808080u;  // 128 more than they are
  const auto number = [above](uint32_t bytes) {
    return __float_as_uint(__uint_as_float(__byte_perm(above, 0x4b000000u, bytes)) - 8388736.0f);
  };
  first = __byte_perm(number(0x7440), number(0x7441), 0x7632);
  second = __byte_perm(number(0x7442), number(0x7443), 0x7632);
}

// As they come back from where they are stored.
template <class E>
__device__ inline float2 roundPair(float2 v);
template <>
__device__ inline float2 roundPair<float>(float2 v) {
  return v;
}
template <>
__device__ inline float2 roundPair<uint16_t>(float2 v) {
  const uint32_t pair = ptx::packBf16(v.x, v.y);
  return make_float2(lowHalf(pair), highHalf(pair));
}

}  // namespace parvis::cuda
