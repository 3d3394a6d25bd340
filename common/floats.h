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

void widen(const void* from, DType type, float* to, size_t count);

}  // namespace parvis
