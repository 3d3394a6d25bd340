// Stored floats to float32 and back, rounding to nearest even.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "parvis/model.h"

namespace parvis {

float halfToFloat(uint16_t h);
uint16_t floatToHalf(float f);

// In the header, because whoever packs weights calls them for each of billions.
inline float bf16ToFloat(uint16_t h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

inline uint16_t floatToBf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  const uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16, quiet = u >> 16 | 0x40;
  return static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

// Integers of -127..127 and the scale that they are multiplied with: symmetric, the largest number at 127; 1 where all
// are zero. NaN where a number is not finite, so that whatever is multiplied with it is not finite either. count: up to
// scaleInputs.
float quantize(const float* from, int count, int8_t* to);
// A row of so many inputs, scales [ceil(inputs / scaleInputs)].
void quantizeRow(const float* row, int64_t inputs, int8_t* to, float* scales);
void dequantizeRow(const int8_t* row, const float* scales, int64_t inputs, float* to);

void widen(const void* from, DType type, float* to, size_t count);

}  // namespace parvis
