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

}  // namespace parvis
