#include "floats.h"

#include <algorithm>
#include <cstring>

#include "parvis/backend.h"

namespace parvis {

float halfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  float f;
  if (exponent == 0) {
    f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  const uint32_t u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  std::memcpy(&f, &u, 4);
  return f;
}

uint16_t floatToHalf(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return sign | 0x7e00;
  if (u >= 0x477ff000u) return sign | 0x7c00;  // rounds to infinity
  if (u < 0x38800000u) {                       // subnormal: let float arithmetic round
    float small, magic = 0.5f;
    std::memcpy(&small, &u, 4);
    small += magic;
    std::memcpy(&u, &small, 4);
    return sign | static_cast<uint16_t>(u - 0x3f000000u);
  }
  u += 0xfffu + (u >> 13 & 1);
  return sign | static_cast<uint16_t>((u - 0x38000000u) >> 13);
}

void widen(const void* from, DType type, float* to, size_t count) {
  const uint16_t* h = static_cast<const uint16_t*>(from);
  if (type == DType::float32) std::memcpy(to, from, count * 4);
  else if (type == DType::float16)
    for (size_t i = 0; i < count; i++) to[i] = halfToFloat(h[i]);
  else
    for (size_t i = 0; i < count; i++) to[i] = bf16ToFloat(h[i]);
}

void convertFloats(const void* from, DType fromType, void* to, DType toType, size_t count) {
  float piece[1024];
  const uint8_t* source = static_cast<const uint8_t*>(from);
  uint8_t* target = static_cast<uint8_t*>(to);
  for (size_t done = 0; done < count; done += 1024) {
    const size_t size = std::min<size_t>(1024, count - done);
    widen(source + done * byteSize(fromType), fromType, piece, size);
    uint8_t* out = target + done * byteSize(toType);
    uint16_t* half = reinterpret_cast<uint16_t*>(out);
    if (toType == DType::float32) std::memcpy(out, piece, size * 4);
    else
      for (size_t i = 0; i < size; i++)
        half[i] = toType == DType::float16 ? floatToHalf(piece[i]) : floatToBf16(piece[i]);
  }
}

}  // namespace parvis
