#include "floats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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

float quantize(const float* from, int count, int8_t* to) {
  float largest = 0;
  bool finite = true;
  for (int i = 0; i < count; i++) {
    finite = finite && std::isfinite(from[i]);
    largest = std::max(largest, std::fabs(from[i]));
  }
  const float scale = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
  const bool usable = scale >= std::numeric_limits<float>::min();  // smaller ones have no inverse
  for (int i = 0; i < count; i++)
    to[i] = usable ? static_cast<int8_t>(std::clamp(std::nearbyint(from[i] / scale), -127.0f, 127.0f)) : int8_t{0};
  return usable || !finite ? scale : 1;
}

void quantizeRow(const float* row, int64_t inputs, int8_t* to, float* scales) {
  for (int64_t i = 0; i < inputs; i += scaleInputs)
    scales[i / scaleInputs] = quantize(row + i, static_cast<int>(std::min<int64_t>(scaleInputs, inputs - i)), to + i);
}

void dequantizeRow(const int8_t* row, const float* scales, int64_t inputs, float* to) {
  for (int64_t i = 0; i < inputs; i++) to[i] = static_cast<float>(row[i]) * scales[i / scaleInputs];
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
