// Stored floats to float32 and back, rounding to nearest even.
#pragma once

#include <cstddef>
#include <cstdint>

#include "parvis/model.h"

namespace parvis {

float halfToFloat(uint16_t h);
uint16_t floatToHalf(float f);
float bf16ToFloat(uint16_t h);
uint16_t floatToBf16(float f);
void widen(const void* from, DType type, float* to, size_t count);

}  // namespace parvis
