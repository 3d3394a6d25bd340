// The arithmetic of a draw, fixed to the bit, so that every backend takes the same token from equal logits.
// Probabilities are 64-bit integers (2^40 for the likeliest token): integer sums do not depend on their order,
// so a parallel reduction and a serial one agree. The float part is one division, one product and a polynomial
// of explicit fused multiply-adds; compile users of this header without contraction (-ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>

#include "random.h"

namespace parvis {

// logits = u + scale (c - u)
PARVIS_HOST_DEVICE static inline float guide(float conditional, float unconditional, float scale) {
  return __builtin_fmaf(scale, conditional - unconditional, unconditional);
}

// Unnormalised probability of a logit `below` (<= 0) the largest one: floor(2^40 * 2^(below * log2 e)), 0 under 2^-40.
PARVIS_HOST_DEVICE static inline uint64_t weightBelow(float below) {
  float t = below * 1.44269504f;
  t = t < -60.0f ? -60.0f : t;  // callers pass finite logits
  const int whole = static_cast<int>(t) - (t < static_cast<float>(static_cast<int>(t)) ? 1 : 0);  // floor
  const float f = t - static_cast<float>(whole);                                                  // [0, 1)
  // 2^f by its Taylor series in f ln 2, degree 7: relative error below 7e-7 on [0, 1)
  float p = 1.525273380e-5f;
  p = __builtin_fmaf(p, f, 1.540353039e-4f);
  p = __builtin_fmaf(p, f, 1.333355815e-3f);
  p = __builtin_fmaf(p, f, 9.618129108e-3f);
  p = __builtin_fmaf(p, f, 5.550410866e-2f);
  p = __builtin_fmaf(p, f, 2.402265070e-1f);
  p = __builtin_fmaf(p, f, 6.931471806e-1f);
  p = __builtin_fmaf(p, f, 1.0f);
  const uint64_t mantissa = static_cast<uint64_t>(static_cast<uint32_t>(p * 16777216.0f));  // 2^24 <= m <= 2^25
  const int shift = 16 + whole;                                                             // 2^40 = 2^24 * 2^16
  return shift >= 0 ? mantissa << shift : shift > -32 ? mantissa >> -shift : 0;
}

// -log2 of the uniform number (r + 1/2) / 2^31, r the upper 31 bits: exponentially distributed. Relative error below
// 1e-6, also where it is small.
PARVIS_HOST_DEVICE static inline float exponentialBits(uint32_t bits) {
  uint32_t x = bits | 1u;  // of 2^32
  int halvings = 0;
  const auto normalise = [&](int by) {
    const bool small = x < 1u << (32 - by);
    x = small ? x << by : x;
    halvings += small ? by : 0;
  };
  normalise(16), normalise(8), normalise(4), normalise(2), normalise(1);
  // x = m 2^31 or m 2^32 with m in [sqrt 1/2, sqrt 2): log2 m by the series of atanh((m - 1) / (m + 1)), where m - 1
  // comes from integers and is exact.
  const bool above = x < 0xb504f334u;
  const float one = above ? 2147483648.0f : 4294967296.0f;
  const float difference = static_cast<float>(static_cast<int32_t>(above ? x - 0x80000000u : x));  // x - 2^32
  const float s = difference / (static_cast<float>(x) + one), s2 = s * s;
  float p = 0.320598898f;
  p = __builtin_fmaf(p, s2, 0.412198583f);
  p = __builtin_fmaf(p, s2, 0.577078016f);
  p = __builtin_fmaf(p, s2, 0.961796694f);
  p = __builtin_fmaf(p, s2, 2.885390082f);
  const float whole = static_cast<float>(above ? halvings + 1 : halvings);
  return __builtin_fmaf(-s, p, whole);
}

// The token of the largest one is drawn with a probability in proportion to its weight. Its logarithm is that of the
// weight plus a Gumbel number: argmax(log p + G), without the logarithms (an exponential race).
PARVIS_HOST_DEVICE static inline float race(uint64_t weight, uint32_t bits) {
  return static_cast<float>(weight) / exponentialBits(bits);
}

}  // namespace parvis
